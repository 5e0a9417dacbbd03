//! The options of `fovea login`, `fovea token` and `fovea worker`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use fovea_security::Role;

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for a person, or for workers that join; prints it, and nobody can see it again
    #[command(after_help = "\
Examples:
  fovea token create --role submitter --name ann              for ann to log in with (`fovea login`)
  fovea token create --role worker --uses 8 > join.token      for 8 workers, within 24 hours
  fovea token create --role viewer --name wall --valid 365d

A token is as good as a password: pass it on in a file with mode 0600, and not in a command line. It names
the cluster's CA, so that its holder needs no other file. A worker joins with the key join_token_file;
the coordinator needs tls_ca_key for that.")]
    Create {
        /// worker (to join), viewer, submitter or admin
        #[arg(long)]
        role: Role,
        /// The person's name; a worker's is chosen by the coordinator
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// How long it is valid: minutes (30m), hours (12h) or days (90d) [default: 24h for workers, 90d for people]
        #[arg(long, value_name = "TIME")]
        valid: Option<Span>,
        /// How many workers may join with it; 0 is no limit [default: 0]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
    },
    /// List the tokens, without their secrets
    List,
    /// Make a token useless at once
    #[command(after_help = "\
Workers that have joined with it stay: their certificates are their own. `fovea worker deny` shuts one out.")]
    Revoke {
        /// The token's id, as `fovea token list` shows it
        id: String,
    },
}

/// What to do about single workers.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Shut a worker out: it is disconnected at once, its runs go on without it, and it is refused from now on
    #[command(after_help = "\
Example:
  fovea worker deny node-3 --reason 'stolen'

NAME is the name in the worker's certificate: what `fovea workers` shows without the last two parts. If it
joined with a token that is still valid, revoke that, too (`fovea token list`): with it, it could join
under another name.")]
    Deny {
        /// The worker's name, or the id of one of its processes
        name: String,
        /// Why, for people; the worker reads it, too
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Let a worker in again
    Allow {
        /// The worker's name
        name: String,
    },
    /// List the workers that are denied
    Denied,
}

/// The option of `fovea login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea --coordinator https://gpu-0:7070 login                 asks for the token
  fovea --coordinator https://gpu-0:7070 login --from ann.token

An admin makes tokens (`fovea token create`). From then on, commands for this coordinator use the token,
unless a certificate (FOVEA_TLS_CERTIFICATE, FOVEA_TLS_KEY) or --token-file is given: that goes before the
login, and the command says so. It is kept in ~/.config/fovea/logins.toml, which only you can read;
`fovea logout` forgets it.")]
pub struct Login {
    /// The file with the token, or - for standard input [default: asks for it]
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// A span of time, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a time; write minutes (30m), hours (12h) or days (90d)");
        let unit = match text.chars().last() {
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 24 * 3600,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        match number.checked_mul(unit) {
            Some(0) => Err(format!(
                "{text:?} is no time at all; the shortest is a minute (1m), and `fovea token revoke` ends a token at once"
            )),
            Some(seconds) => Ok(Self(seconds)),
            None => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        for (text, seconds) in [("30m", 1800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "90",
            "0h",
            "-1d",
            "1.5h",
            "90 d",
            "99999999999999999d",
            "3ä",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["0m", "0h", "0d", "00d"] {
            let said = text.parse::<Span>().unwrap_err();
            assert!(
                said.contains("is no time at all; the shortest is a minute"),
                "{said}"
            );
        }
    }
}
