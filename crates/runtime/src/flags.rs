//! Flags common to all components.

use std::net::SocketAddr;
use std::sync::OnceLock;

use jiff::Timestamp;

/// Flatten into a component's clap struct with `#[command(flatten)]`.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonFlags {
    /// Which log lines to write: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, env = "SKIFF_LOG", default_value = "info")]
    pub log_level: String,

    /// Address for /healthz, /livez and /readyz over HTTP; not served when absent.
    #[arg(long, value_name = "IP:PORT")]
    pub health_bind_address: Option<SocketAddr>,
}

/// What a process was started with.
#[derive(Debug, Default)]
pub struct Started {
    pub at: Timestamp,
    /// Its flags with their values, by name; those that were not set have their defaults.
    pub flags: Vec<(String, String)>,
}

static STARTED: OnceLock<Started> = OnceLock::new();

/// Parses the flags of this process and remembers them; exits if they are invalid.
pub fn parse<C: clap::Parser>() -> C {
    let matches = C::command().get_matches();
    let flags = named(&C::command(), &matches);
    STARTED.get_or_init(|| Started { at: clock::system().now(), flags });
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// What this process was started with; only the time of the first question where [`parse`] was not
/// used.
pub fn started() -> &'static Started {
    STARTED.get_or_init(|| Started { at: clock::system().now(), flags: Vec::new() })
}

fn named(command: &clap::Command, matches: &clap::ArgMatches) -> Vec<(String, String)> {
    let mut flags: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| {
            let name = argument.get_long()?;
            let values = matches.get_raw(argument.get_id().as_str())?;
            let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            Some((name.to_owned(), values.join(",")))
        })
        .collect();
    flags.sort();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Config {
        #[command(flatten)]
        common: CommonFlags,
        #[arg(long)]
        unset: Option<String>,
        #[arg(long, value_delimiter = ',')]
        list: Vec<String>,
    }

    #[test]
    fn flags_have_their_names_and_values() {
        let command = <Config as clap::CommandFactory>::command();
        let matches = command.clone().get_matches_from(["x", "--list=b,a", "--log-level=warn"]);
        let config = <Config as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        assert_eq!((config.common.log_level, config.unset), ("warn".to_owned(), None));
        assert_eq!(config.list, ["b", "a"]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(named(&command, &matches), [pair("list", "b,a"), pair("log-level", "warn")]);
    }
}
