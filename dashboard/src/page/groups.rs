//! The list of groups, in pages.

use maud::{Markup, html};

use super::pieces::{ago, dash, empty, heads, scrolled, some};
use super::{Sheet, part};
use crate::model::{GroupList, GroupRow, GroupState};

/// A page of the list at `now_ms`.
pub fn groups(list: &GroupList, now_ms: u64) -> Sheet {
    let content = html! {
        div id="list" {
            @if list.groups.is_empty() {
                section class="card" aria-label="Groups" {
                    (empty(html! {
                        @if list.is_later { "No older groups." } @else {
                            "No groups yet: " code { "fovea submit run.toml --folds 5" } ", " code { "--seeds 0,1,2" } " or "
                            code { "fovea sweep sweep.toml" } " starts one."
                        }
                    }))
                }
            } @else {
                (scrolled("Groups", html! {
                    table {
                        (heads(&["Group", "State", ">Best so far", "+Owner", "+>Submitted"]))
                        tbody { @for group in &list.groups { (row(group, now_ms)) } }
                    }
                }))
                div class="under" {
                    nav aria-label="More groups" class="pages" {
                        @if list.is_later { a href="/groups" { "Newest" } }
                        @if let Some(older) = list.older { a href=(format!("/groups?before={older}")) rel="next" { "Older" } }
                    }
                }
            }
        }
    };
    let head = html! { div id="head" class="title" { h1 { "Groups" } } };
    Sheet::new("Groups", vec![part("head", head), part("list", content)])
}

fn row(group: &GroupRow, now_ms: u64) -> Markup {
    html! {
        tr {
            th scope="row" {
                (group_link(&group.id))
                span class="sub" { (group.kind_in_words()) " · " (group.datasets.join(", ")) }
            }
            td { (state(group.state)) span class="sub" { (group.phases_in_words()) } }
            td class="n" {
                (some(group.best.spread.map(|s| s.mean), 3))
                span class="sub" {
                    (group.by.title()) @if let Some(sd) = group.best.spread.and_then(|s| s.sd) { " ± " (some(Some(sd), 3)) }
                }
                @if !group.best_label.is_empty() && group.best.spread.is_some() { span class="sub long" { (group.best_label) } }
            }
            td class="room" { (dash(group.owner.as_deref())) }
            td class="n room" { (ago(group.submitted_at_ms, now_ms)) }
        }
    }
}

/// A link to a group.
pub(super) fn group_link(id: &str) -> Markup {
    html! { a class="id" href=(format!("/groups/{id}")) { (id) } }
}

/// Where a group is, as a word with its colour.
pub(super) fn state(state: GroupState) -> Markup {
    let (name, like) = state.name();
    html! { span class=(format!("badge b-{}", like.name())) { (name) } }
}
