//! Running another program with arguments that may come from anyone: [`Program`].
//!
//! A program cannot tell an option from an operand that looks like one. So options are constants
//! of the code, and all operands come after `--`, whatever they begin with.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Ends the options (POSIX, Utility Syntax Guidelines, 10).
const END_OF_OPTIONS: &str = "--";

/// A program and its arguments. Options come first, operands last, in the order given.
#[derive(Debug)]
pub struct Program {
    name: OsString,
    options: Vec<OsString>,
    operands: Vec<OsString>,
}

impl Program {
    pub fn new(name: impl Into<OsString>) -> Self {
        Self { name: name.into(), options: Vec::new(), operands: Vec::new() }
    }

    /// Adds an option, which only the code decides on.
    #[must_use]
    pub fn option(mut self, option: &'static str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Adds an option with a value. The value is an argument of its own, which a program takes as
    /// the value even if it begins with a dash.
    #[must_use]
    pub fn option_with_value(mut self, option: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.options.push(option.into());
        self.options.push(value.as_ref().to_owned());
        self
    }

    /// Adds an operand.
    #[must_use]
    pub fn operand(mut self, operand: impl AsRef<OsStr>) -> Self {
        self.operands.push(operand.as_ref().to_owned());
        self
    }

    /// The command, to be run as it is.
    pub fn into_command(self) -> Command {
        let mut command = Command::new(self.name);
        command.args(self.options);
        if !self.operands.is_empty() {
            command.arg(END_OF_OPTIONS).args(self.operands);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(program: Program) -> Vec<String> {
        let command = program.into_command();
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn operands_are_never_options() {
        let program = Program::new("mount")
            .operand("-iT/tmp/x:/export")
            .option_with_value("-t", "nfs")
            .option("-v")
            .operand("--help");
        let expected = ["-t", "nfs", "-v", "--", "-iT/tmp/x:/export", "--help"];
        assert_eq!(arguments(program), expected);
        assert_eq!(arguments(Program::new("mount").option("-a")), ["-a"]);
    }

    /// With `cat`: the shell's `echo` takes some operands for options.
    #[test]
    fn programs_take_operands_for_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("--version"), "a file\n").unwrap();
        let mut command = Program::new("cat").operand("--version").into_command();
        let output = command.current_dir(folder.path()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a file\n");
    }
}
