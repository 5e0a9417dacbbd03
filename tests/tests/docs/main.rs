//! The documentation: what it says is so. Links lead somewhere, commands parse, messages and events are those of the sources,
//! and the generated pages are current.

mod commands;
mod events;
mod links;
mod messages;
mod pages;
#[path = "../../reference.rs"]
mod reference;
mod settings;
mod sources;
