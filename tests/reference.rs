//! The generated pages of docs/reference/. The tests of each program include this file
//! (`#[cfg(test)] #[path = "../../tests/reference.rs"] mod reference;`) and compare the page of their command line with clap's
//! definition; `tests/tests/docs` does the same for the pages of the configuration files. `make reference` writes the pages.

// Each of the including tests uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The variable that has the pages written instead of compared.
const WRITE: &str = "FOVEA_WRITE_REFERENCE";

/// Compares the page `docs/reference/NAME` with what it should hold, or writes it where `make reference` asks for that.
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/reference")
        .join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = held.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or_else(|| held.lines().count().min(text.lines().count()));
    assert!(
        held == text,
        "docs/reference/{name} is not current from line {} on: `make reference` writes it anew",
        line + 1
    );
}

/// Where a page comes from, for whoever wants to change it.
pub fn origin(of: &str) -> String {
    format!("<!-- Generated from {of} by `make reference`; a test compares them. -->\n\n")
}

/// Text for a paragraph: what Markdown and HTML would take for markup is escaped, but not within backticks.
pub fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(number, part)| {
        if number % 2 == 1 {
            return format!("`{part}`");
        }
        part.replace('<', "&lt;")
            .replace('*', "\\*")
            .replace('[', "\\[")
    });
    parts.collect()
}

/// Text for a cell of a table: one line, no bar.
pub fn cell(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        words.join(" ")
    });
    let text = paragraphs.collect::<Vec<_>>().join("<br>");
    text.replace('|', "\\|")
}

/// The page of a program: its options, and each of its commands with arguments, options and examples.
pub fn commands(mut program: clap::Command, definition: &str) -> String {
    program.build();
    let name = program.get_name().to_owned();
    let mut page = format!("# {name}\n\n{}", origin(definition));
    let about = program.get_about().expect("a program says what it is");
    let _ = writeln!(page, "{}\n", sentence(&about.to_string()));
    usage(&mut page, &program);
    let listed = visible(&program);
    if !listed.is_empty() {
        page += "\n| command | what it does |\n|---|---|\n";
        for command in &listed {
            let about = command.get_about().expect("a command says what it does");
            let link = anchor(command);
            let _ = writeln!(
                page,
                "| [`{}`](#{link}) | {} |",
                command.get_name(),
                cell(&prose(&about.to_string()))
            );
        }
    }
    let global = arguments(&program).any(|argument| argument.is_global_set());
    if global {
        let all = arguments(&program).all(|argument| argument.is_global_set());
        let heading = match all {
            true => "Options of every command",
            false => "Options",
        };
        let _ = writeln!(page, "\n## {heading}");
    }
    options(&mut page, &program, |_| true);
    let (own, shared): (Vec<_>, Vec<_>) = arguments(&program).partition(|a| !a.is_global_set());
    if !own.is_empty() && !shared.is_empty() {
        let shared = shared.iter().filter_map(|argument| argument.get_long());
        let shared = shared.map(|long| format!("`--{long}`")).collect::<Vec<_>>();
        let _ = writeln!(page, "\nThe commands take {}, too.", shared.join(", "));
    }
    unused(&mut page, &program);
    after(&mut page, &program, "##");
    for command in listed {
        section(&mut page, command, 2);
    }
    page
}

/// The section of a command, and those of its own commands.
fn section(page: &mut String, command: &clap::Command, level: usize) {
    let name = command.get_bin_name().expect("a command that was built");
    let _ = writeln!(page, "\n{} {name}\n", "#".repeat(level));
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.expect("a command says what it does").to_string();
    let _ = writeln!(page, "{}\n", sentence(&prose(&about)));
    usage(page, command);
    options(page, command, |argument| !argument.is_global_set());
    after(page, command, &"#".repeat(level + 2));
    for command in visible(command) {
        section(page, command, level + 1);
    }
}

/// The commands of a command, in the order of its help.
fn visible(command: &clap::Command) -> Vec<&clap::Command> {
    let help = command.clone().render_help().to_string();
    let commands = command.get_subcommands();
    let mut visible: Vec<_> = commands
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .collect();
    visible.sort_by_key(|command| help.find(&format!("\n  {} ", command.get_name())));
    visible
}

/// Arguments and options that help shows, but help and version themselves.
fn arguments(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    let arguments = command.get_arguments();
    arguments.filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()))
}

fn anchor(command: &clap::Command) -> String {
    let name = command.get_bin_name().expect("a command that was built");
    name.replace(' ', "-")
}

fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

fn usage(page: &mut String, command: &clap::Command) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = writeln!(page, "```text\n{usage}\n```");
}

/// The table of arguments and options.
fn options(page: &mut String, command: &clap::Command, shown: impl Fn(&clap::Arg) -> bool) {
    let (positional, named): (Vec<_>, Vec<_>) = arguments(command)
        .filter(|argument| shown(argument))
        .partition(|argument| argument.is_positional());
    if positional.is_empty() && named.is_empty() {
        return;
    }
    *page += "\n| option | meaning |\n|---|---|\n";
    for argument in positional.into_iter().chain(named) {
        let _ = writeln!(
            page,
            "| `{}` | {} |",
            spelling(argument).replace('|', "\\|"),
            cell(&meaning(argument))
        );
    }
}

/// `--out FILE`, `FOLDER`.
fn spelling(argument: &clap::Arg) -> String {
    let takes = argument.get_action().takes_values();
    let names = argument.get_value_names().unwrap_or_default();
    let mut values: Vec<String> = names.iter().map(ToString::to_string).collect();
    if argument.get_num_args().is_some_and(|n| n.max_values() > 1) && values.len() == 1 {
        values[0] += "...";
    }
    let values = values.join(" ");
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let flags = [short, long].into_iter().flatten();
    let flags = flags.collect::<Vec<_>>().join(", ");
    match (flags.is_empty(), takes) {
        (true, _) => values,
        (false, true) => format!("{flags} {values}"),
        (false, false) => flags,
    }
}

fn meaning(argument: &clap::Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    // A default that clap does not know is in the text.
    let (help, default) = match help
        .strip_suffix(']')
        .and_then(|h| h.split_once(" [default: "))
    {
        Some((help, default)) => (help, Some(default)),
        None => (help.as_str(), None),
    };
    let mut text = sentence(&prose(help));
    if let Some(default) = default {
        let _ = write!(text, " Default: {}.", prose(default));
    }
    let defaults = argument.get_default_values();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let values: Vec<_> = defaults.iter().map(|v| v.to_string_lossy()).collect();
        let _ = write!(text, " Default: `{}`.", values.join(" "));
    }
    let possible = argument.get_possible_values();
    if argument.get_action().takes_values() && !possible.is_empty() {
        let values: Vec<_> = possible
            .iter()
            .map(|v| format!("`{}`", v.get_name()))
            .collect();
        let _ = write!(text, " One of {}.", values.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, " Variable: `{}`.", variable.to_string_lossy());
    }
    if argument.is_required_set() && !argument.is_positional() {
        text += " Required.";
    }
    text
}

/// Which commands take an option of every command without using it.
fn unused(page: &mut String, program: &clap::Command) {
    let mut unused: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for argument in arguments(program).filter(|argument| argument.is_global_set()) {
        let hides = |command: &&clap::Command| {
            let mut arguments = command.get_arguments();
            arguments.any(|other| other.get_id() == argument.get_id() && other.is_hide_set())
        };
        let commands: Vec<String> = visible(program)
            .into_iter()
            .filter(hides)
            .map(|command| format!("`{}`", command.get_name()))
            .collect();
        let long = argument.get_long().unwrap_or_default();
        unused
            .entry(commands)
            .or_default()
            .push(format!("`--{long}`"));
    }
    for (commands, options) in unused.iter().filter(|(commands, _)| !commands.is_empty()) {
        let (options, commands) = (options.join(", "), commands.join(", "));
        let _ = writeln!(page, "\nNot for {commands}: {options}.");
    }
}

/// What help says at its end: paragraphs, and blocks under a heading.
fn after(page: &mut String, command: &clap::Command, heading: &str) {
    let text = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    for paragraph in text.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let is_block = first.ends_with(':') && rest.lines().all(|line| line.starts_with("  "));
        if !is_block || rest.is_empty() {
            let _ = writeln!(page, "\n{}", prose(paragraph.trim()));
            continue;
        }
        let title = first.trim_end_matches(':');
        let examples = title.starts_with("Example");
        let (title, lead) = title.split_once(", ").unwrap_or((title, ""));
        // Those of a single command need no entry of their own in a table of contents.
        match examples && heading != "##" {
            true => page.push('\n'),
            false => {
                let _ = writeln!(page, "\n{heading} {title}\n");
            }
        }
        if !lead.is_empty() {
            let _ = writeln!(page, "{}:\n", prose(&capital(lead)));
        }
        let lines: Vec<&str> = rest
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .collect();
        let language = if examples { "sh" } else { "text" };
        let _ = writeln!(page, "```{language}\n{}\n```", commented(&lines, examples));
    }
}

/// Examples with what they do as comments, so that they can be pasted.
fn commented(lines: &[&str], examples: bool) -> String {
    if !examples {
        return lines.join("\n");
    }
    // What they do is in a column, one space behind the longest command.
    let column = lines.iter().find_map(|line| {
        let gap = line.trim_end().find("   ")?;
        Some(gap + line[gap..].find(|c| c != ' ')?)
    });
    let mut out: Vec<(String, String)> = Vec::new();
    for line in lines {
        let in_column = column.filter(|at| line.get(at - 1..*at) == Some(" "));
        let explained = in_column.or_else(|| line.find("   ").filter(|at| *at > 0));
        let (command, what) = match explained {
            Some(at) => (line[..at].trim_end(), line[at..].trim()),
            None => (line.trim_end(), ""),
        };
        match out.last_mut() {
            // The explanation is on a line of its own.
            Some((_, last)) if command.is_empty() => *last += what,
            _ => out.push((command.to_owned(), what.to_owned())),
        }
    }
    let explained = out.iter().filter(|(_, what)| !what.is_empty());
    let widest = explained.map(|(command, _)| command.len()).max();
    let lines = out.iter().map(|(command, what)| match what.is_empty() {
        true => command.clone(),
        false => format!("{command:0$}   # {what}", widest.unwrap_or_default()),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
