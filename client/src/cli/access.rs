//! `fovea login`, `logout`, `whoami`, `token` and `worker`.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use console::Term;
use fovea_core::count::count;
use fovea_security::{Role, Token, utc};
use fovea_service::nearest;

use super::access_args::{Login, Span, TokenCommand, WorkerCommand};
use super::args::TlsArgs;
use super::format::{ago, now_ms};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use super::tls::before_login;
use crate::access::NewToken;
use crate::client::Client;
use crate::credentials::{Credentials, person};
use crate::error::Error;
use crate::logins::Logins;
use crate::view::{IdentityInfo, TokenInfo};

/// How long tokens are valid unless somebody says otherwise, seconds.
const FOR_WORKERS: u64 = 24 * 3600;
const FOR_PEOPLE: u64 = 90 * 24 * 3600;

/// Checks a token at the coordinator and keeps it.
pub async fn login(
    address: &str,
    command: &Login,
    tls: &TlsArgs,
    timeout: Duration,
    output: &Output,
) -> Result<(), Error> {
    if !address.starts_with("https://") {
        return Err(Error::Usage(format!(
            "{address} is not an address with TLS, and a token is sent over TLS only; give --coordinator \
             https://HOST:PORT (or FOVEA_COORDINATOR)"
        )));
    }
    let logins = Logins::of_this_person()?;
    let text = read(command.from.as_deref(), address)?;
    let token = person(&text).map_err(Error::Usage)?;
    let with = Credentials::Token(token.clone());
    let client = Client::connect_as(address, &with, timeout).await?;
    let identity = client.identity().await?;
    logins.put(address, token.reveal())?;
    output.record(&Record::Identity(&identity));
    output.line(format!("logged in to {address} as {}", whose(&identity)));
    if let Some(remark) = before_login(tls, address) {
        output.remark(format!("But {remark}."));
    }
    Ok(())
}

/// Forgets a token.
pub fn logout(address: &str, output: &Output) -> Result<(), Error> {
    let logins = Logins::of_this_person()?;
    output.line(match logins.remove(address)? {
        true => format!(
            "logged out of {address}; the token stays valid until it ends or is revoked (`fovea token revoke`)"
        ),
        false => format!("you were not logged in to {address}"),
    });
    Ok(())
}

/// Says who the caller is.
pub async fn whoami(client: &Client, output: &Output) -> Result<(), Error> {
    let identity = client.identity().await?;
    output.record(&Record::Identity(&identity));
    output.line(match identity.name.as_str() {
        "" => format!(
            "{} has no TLS: everybody who reaches it may do everything",
            client.address()
        ),
        _ => whose(&identity),
    });
    Ok(())
}

fn whose(identity: &IdentityInfo) -> String {
    let IdentityInfo {
        cluster,
        role,
        name,
        token_id,
        token_expires_at_ms,
    } = identity;
    let by = match token_id.as_str() {
        "" => "by certificate".to_owned(),
        id => format!("by token {id}, valid until {}", utc(*token_expires_at_ms)),
    };
    format!("{name}, {role} of the cluster {cluster}, {by}")
}

/// The text of a token: from a file, from standard input, or from whoever sits there.
fn read(from: Option<&Path>, address: &str) -> Result<String, Error> {
    let stdin = || {
        let mut text = String::new();
        let read = std::io::stdin().take(4096).read_to_string(&mut text);
        read.map(|_| text)
            .map_err(|error| Error::io(Path::new("standard input"), error))
    };
    match from {
        Some(path) if path == Path::new("-") => stdin(),
        Some(path) => match Credentials::from_file(path)? {
            Credentials::Token(token) => Ok(token.reveal()),
            Credentials::Nothing | Credentials::Certificate(_) => Ok(String::new()),
        },
        None if std::io::stdin().is_terminal() => {
            eprint!("Token for {address}: ");
            Term::stderr()
                .read_secure_line()
                .map_err(|error| Error::io(Path::new("the terminal"), error))
        }
        None => stdin(),
    }
}

/// Runs one of the commands about tokens.
pub async fn token(client: &Client, command: TokenCommand, output: &Output) -> Result<(), Error> {
    match command {
        TokenCommand::Create {
            role,
            name,
            valid,
            uses,
        } => create(client, role, name, valid, uses, output).await,
        TokenCommand::List => list(client, output).await,
        TokenCommand::Revoke { id } => {
            let revoked = client.revoke_token(id_of(&id)).await?;
            output.record(&Record::Token {
                info: &revoked,
                token: None,
            });
            output.line(format!(
                "revoked token {}, {}",
                revoked.id,
                use_of(&revoked)
            ));
            if revoked.role == Role::Worker.as_str() && revoked.used > 0 {
                output.remark(format!(
                    "{} the cluster; `fovea worker deny NAME` shuts one out.",
                    count(
                        revoked.used,
                        "worker that joined with it stays in",
                        "workers that joined with it stay in"
                    )
                ));
            }
            Ok(())
        }
    }
}

async fn create(
    client: &Client,
    role: Role,
    name: Option<String>,
    valid: Option<Span>,
    uses: Option<u32>,
    output: &Output,
) -> Result<(), Error> {
    let is_worker = role == Role::Worker;
    if !is_worker && name.is_none() {
        return Err(Error::Usage(format!(
            "--name is missing: whose is the token? It is what runs and the log say of a {role}"
        )));
    }
    let default = match is_worker {
        true => FOR_WORKERS,
        false => FOR_PEOPLE,
    };
    let new = NewToken {
        role: role.to_string(),
        name: name.unwrap_or_default(),
        valid_s: valid.map_or(default, |Span(seconds)| seconds),
        uses: uses.unwrap_or(0),
    };
    let (token, info) = client.create_token(new).await?;
    let record = Record::Token {
        info: &info,
        token: Some(&token),
    };
    // Nobody else knows it.
    output.result(&record, &token).map_err(|error| {
        let lost = format!(
            "{error}. Nobody has token {id}: make it void with `fovea token revoke {id}`",
            id = info.id
        );
        Error::io("standard output", std::io::Error::new(error.kind(), lost))
    })?;
    output.remark(format!(
        "Token {} {}, until {}. It is shown this once; keep it in a file with mode 0600.",
        info.id,
        use_of(&info),
        utc(info.expires_at_ms)
    ));
    Ok(())
}

/// Somebody may paste the whole token instead of its id.
fn id_of(text: &str) -> &str {
    match text.parse::<Token>() {
        Ok(_) => text.trim().split('.').nth(2).unwrap_or(text),
        Err(_) => text,
    }
}

fn use_of(token: &TokenInfo) -> String {
    match (token.name.as_str(), token.uses) {
        ("", 0) => "for workers that join".into(),
        ("", uses) => format!("for {} to join", count(uses, "worker", "workers")),
        (name, _) => format!("of {name} ({})", token.role),
    }
}

async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let tokens = client.tokens().await?;
    for info in &tokens {
        output.record(&Record::Token { info, token: None });
    }
    if tokens.is_empty() {
        output.line("there are no tokens; `fovea token create` makes one");
        return Ok(());
    }
    let now = now_ms();
    let mut table = Table::new(&[
        "id",
        "role",
        "name",
        "until",
        "used",
        "last used",
        "made by",
    ]);
    for token in &tokens {
        let dash = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        let until = match token.expires_at_ms <= now {
            true => format!("EXPIRED {}", utc(token.expires_at_ms)),
            false => utc(token.expires_at_ms),
        };
        let used = match (token.role == Role::Worker.as_str(), token.uses) {
            (false, _) => "-".into(),
            (true, 0) => token.used.to_string(),
            (true, uses) => format!("{} of {uses}", token.used),
        };
        table.row(vec![
            token.id.clone(),
            token.role.clone(),
            dash(&token.name),
            until,
            used,
            match token.last_used_at_ms {
                0 => "-".into(),
                at => ago(at, now),
            },
            dash(&token.created_by),
        ]);
    }
    output.lines(table.lines());
    Ok(())
}

/// Runs one of the commands about single workers.
pub async fn worker(client: &Client, command: WorkerCommand, output: &Output) -> Result<(), Error> {
    match command {
        WorkerCommand::Deny { name, reason } => {
            let connected = client.workers().await?;
            let ids: Vec<&str> = connected.iter().map(|worker| &*worker.id).collect();
            let name = name_of(&ids, name);
            let sessions = client.deny_worker(&name, &reason).await?;
            output.record(&Record::WorkerDenied {
                name: &name,
                denied: true,
                sessions,
            });
            output.line(match sessions {
                0 => format!("{name} is denied; it was not connected"),
                n => format!(
                    "{name} is denied; {} disconnected",
                    count(n, "process was", "processes were")
                ),
            });
            if sessions == 0 {
                output.remark(meant(&ids, &name));
            }
        }
        WorkerCommand::Allow { name } => {
            client.allow_worker(&name).await?;
            output.record(&Record::WorkerDenied {
                name: &name,
                denied: false,
                sessions: 0,
            });
            output.line(format!("{name} may join again"));
        }
        WorkerCommand::Denied => {
            let denied = client.denied_workers().await?;
            for denied in &denied {
                output.record(&Record::Denied(denied));
            }
            if denied.is_empty() {
                output.line("no worker is denied");
                return Ok(());
            }
            let mut table = Table::new(&["worker", "since", "by", "reason"]);
            for denied in denied {
                let dash = |text: String| if text.is_empty() { "-".into() } else { text };
                table.row(vec![
                    denied.name,
                    utc(denied.since_ms),
                    dash(denied.by),
                    dash(denied.reason),
                ]);
            }
            output.lines(table.lines());
        }
    }
    Ok(())
}

/// The name of the worker that somebody means: `fovea workers` shows ids of processes.
fn name_of(ids: &[&str], given: String) -> String {
    let name = match ids.contains(&&*given) {
        true => name_in(&given).map(str::to_owned),
        false => None,
    };
    name.unwrap_or(given)
}

/// The name of a worker in the id of one of its processes: NAME-PROCESS-RANDOM.
fn name_in(id: &str) -> Option<&str> {
    id.rsplitn(3, '-').nth(2)
}

/// What to tell somebody who has denied a worker that is not connected: it may be one that is away, or a mistyped name.
fn meant(ids: &[&str], name: &str) -> String {
    let names: BTreeSet<&str> = ids.iter().filter_map(|id| name_in(id)).collect();
    let known = match names.len() {
        0 => "no worker is connected".to_owned(),
        1..=20 => format!(
            "connected are {}",
            names.iter().copied().collect::<Vec<_>>().join(", ")
        ),
        n => format!("{n} others are connected (`fovea workers`)"),
    };
    match nearest(name, names) {
        Some(near) => format!(
            "If you meant {near}: `fovea worker allow {name}`, then `fovea worker deny {near}`; {known}."
        ),
        None => {
            format!("If {name} is mistyped, `fovea worker allow {name}` takes it back; {known}.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_with_those_that_are_there() {
        let ids = ["node-1-77-0a0b", "node-1-78-0a0c", "gpu-box-3-5-0a0d"];
        assert_eq!(name_of(&ids, "node-1-77-0a0b".into()), "node-1");
        assert_eq!(name_of(&ids, "node-1".into()), "node-1");
        assert_eq!(
            meant(&ids, "nod-1"),
            "If you meant node-1: `fovea worker allow nod-1`, then `fovea worker deny node-1`; connected are gpu-box-3, \
             node-1."
        );
        let far = meant(&ids, "something-else");
        assert!(
            far.starts_with("If something-else is mistyped, `fovea worker allow"),
            "{far}"
        );
        assert!(far.ends_with("connected are gpu-box-3, node-1."), "{far}");
        assert!(meant(&[], "x").ends_with("no worker is connected."));
    }
}
