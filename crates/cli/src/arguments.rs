//! Command lines as kubectl's flag parser reads them, and its messages for those it rejects.
//!
//! Kubectl's flags differ from clap's in three ways: a switch may be given a value
//! (`--force=false`), the later of two values of a flag wins, and errors are two lines with exit
//! code 1.

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, Error};

/// Lets every switch of a command and its subcommands take a value.
pub fn with_boolean_values(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command.mut_args(switch), |command, name| {
        command.mut_subcommand(name, with_boolean_values)
    })
}

fn switch(argument: clap::Arg) -> clap::Arg {
    if !matches!(argument.get_action(), ArgAction::SetTrue) {
        return argument;
    }
    argument
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(BoolishValueParser::new())
}

/// Whether a command line gives any flag a boolean value, so that switches have to accept one.
pub fn has_boolean_values(arguments: &[String]) -> bool {
    arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.starts_with('-') && (word.ends_with("=true") || word.ends_with("=false")))
}

/// kubectl's message for a command line that clap rejects.
pub fn usage_error(error: &Error, root: &Command, arguments: &[String]) -> String {
    let path = path(root, arguments);
    let at = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let argument = at(ContextKind::InvalidArg);
    let help = format!("See '{path} --help' for usage.");
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            let name = argument.split('=').next().unwrap_or_default();
            format!("error: unknown flag: {name}\n{help}")
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let letter = argument.chars().nth(1).unwrap_or('-');
            format!("error: unknown shorthand flag: {letter:?} in {argument}\n{help}")
        }
        ErrorKind::UnknownArgument => {
            format!("error: unexpected args: [{argument}]\nSee '{path} -h' for help and examples")
        }
        ErrorKind::InvalidSubcommand => {
            unknown_command(&at(ContextKind::InvalidSubcommand), root, &path)
        }
        ErrorKind::MissingRequiredArgument => missing(error, &path),
        ErrorKind::InvalidValue if at(ContextKind::InvalidValue).is_empty() => {
            format!("error: flag needs an argument: {}\n{help}", flag(&argument))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = at(ContextKind::InvalidValue);
            let why = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_else(|| format!("must be one of {}", at(ContextKind::ValidValue)));
            format!(
                "error: invalid argument {value:?} for {:?} flag: {why}\n{help}",
                flag(&argument)
            )
        }
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            format!("{first}\nSee '{path} -h' for help and examples")
        }
    }
}

/// `--namespace <NAMESPACE>` without its value.
fn flag(argument: &str) -> &str {
    argument.split_whitespace().next().unwrap_or_default()
}

fn missing(error: &Error, path: &str) -> String {
    let Some(ContextValue::Strings(names)) = error.get(ContextKind::InvalidArg) else {
        return format!(
            "error: a required argument is missing\nSee '{path} -h' for help and examples"
        );
    };
    let flags: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with("--"))
        .map(|name| format!("{:?}", flag(name).trim_start_matches('-')))
        .collect();
    if flags.is_empty() {
        let names: Vec<&str> =
            names.iter().map(|name| name.trim_matches(['<', '>', '.', '[', ']'])).collect();
        return format!(
            "error: {} is required\nSee '{path} -h' for help and examples",
            names.join(" and ")
        );
    }
    format!("error: required flag(s) {} not set", flags.join(", "))
}

fn unknown_command(word: &str, root: &Command, path: &str) -> String {
    let mut text = format!("error: unknown command {word:?} for {path:?}");
    let top = path == root.get_name();
    let similar: Vec<&str> = root
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| top && (strsim::levenshtein(word, name) <= 2 || name.starts_with(word)))
        .collect();
    if !similar.is_empty() {
        text.push_str("\n\nDid you mean this?");
        for name in similar {
            text.push_str(&format!("\n\t{name}"));
        }
    } else {
        text.push_str(&format!("\nSee '{path} --help' for usage."));
    }
    text
}

/// `skiff create secret`: the commands that a command line names.
fn path(root: &Command, arguments: &[String]) -> String {
    let mut path = root.get_name().to_owned();
    let mut here = root;
    for word in arguments.iter().skip(1) {
        if let Some(next) = here.find_subcommand(word) {
            path.push_str(&format!(" {}", next.get_name()));
            here = next;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        Command::new("skiff")
            .subcommand(
                Command::new("get")
                    .arg(Arg::new("all").long("all").action(ArgAction::SetTrue))
                    .arg(Arg::new("output").short('o').long("output"))
                    .arg(Arg::new("image").long("image").required(true)),
            )
            .subcommand(Command::new("set"))
    }

    #[test]
    fn usage_errors_match_kubectl() {
        for (line, expected) in [
            ("skiff get --foo=1", "error: unknown flag: --foo\nSee 'skiff get --help' for usage."),
            (
                "skiff get -z",
                "error: unknown shorthand flag: 'z' in -z\nSee 'skiff get --help' for usage.",
            ),
            (
                "skiff get --output",
                "error: flag needs an argument: --output\nSee 'skiff get --help' for usage.",
            ),
            ("skiff get", "error: required flag(s) \"image\" not set"),
            (
                "skiff gt",
                "error: unknown command \"gt\" for \"skiff\"\n\nDid you mean this?\n\tget\n\tset",
            ),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let error = command().try_get_matches_from(&words).unwrap_err();
            assert_eq!(usage_error(&error, &command(), &words), expected, "{line}");
        }
    }

    #[test]
    fn switches_take_values() {
        for (flag, expected) in [("--all", true), ("--all=true", true), ("--all=false", false)] {
            let words = ["skiff", "get", "--image=x", flag].map(str::to_owned);
            assert_eq!(has_boolean_values(&words), flag != "--all");
            let matches = with_boolean_values(command()).get_matches_from(words);
            let (_, get) = matches.subcommand().unwrap();
            assert_eq!(get.get_one::<bool>("all"), Some(&expected), "{flag}");
        }
    }
}
