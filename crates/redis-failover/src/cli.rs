//! The command line: flags, environment and file to one [`Config`], or a command: [`Doctor`], [`Migrate`].
//!
//! Nothing here touches the process: the caller hands in arguments and environment, prints what
//! comes back and chooses the exit status.

mod doctor;
mod migrate;

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::config::{
    Config, ConfigError, Draft, Given, Origin, SECTIONS, Setting, Value, read_file,
};
pub use doctor::{Doctor, Found};
pub use migrate::Migrate;

/// The flag and environment variable of the file itself.
const CONFIG: &str = "config";
const CONFIG_ENVIRONMENT: &str = "REDIS_FAILOVER_CONFIG";

const AFTER_HELP: &str = "\
A flag is written -flag=value, -flag value, --flag=value or --flag value.
Every setting can also be in the config file or in the environment as REDIS_FAILOVER_<FLAG>.
Flags win over the environment, the environment over the file, the file over the defaults.
A password or secret is never a flag: use redis_password_file and cluster_secret_file, or redis_password
and cluster_secret in the file or environment.";

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// To run with this config, which is valid.
    Run(Box<Config>),
    /// To have groups examined by a node that runs.
    Doctor(Doctor),
    /// To have the record copied from one broker to another.
    Migrate(Box<Migrate>),
    /// To print this to standard output and do nothing else: the help or the version.
    Print(String),
}

/// Reads arguments (the program's own name first), environment and file.
///
/// # Errors
/// The first thing that is wrong, with its place; nothing is started then, and the exit status is
/// 2.
pub fn load<A: Into<OsString>>(
    args: impl IntoIterator<Item = A>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Parsed, ConfigError> {
    let args = with_two_dashes(args.into_iter().map(Into::into));
    let names = [doctor::NAME, migrate::NAME];
    let of_command = args.iter().skip(1).find_map(|arg| names.into_iter().find(|name| arg == name));
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        // Help and version are no failure, though the parser returns them as errors.
        Err(error) if !error.use_stderr() => return Ok(Parsed::Print(error.to_string())),
        Err(error) => return Err(ConfigError::Usage(in_one_sentence(&error, of_command))),
    };

    if let Some((name, of_command)) = matches.subcommand() {
        if matches.args_present() {
            return Err(ConfigError::Usage(format!(
                "a setting before the command {name} would not act: the command takes {}, behind it",
                takes(name)
            )));
        }
        return if name == migrate::NAME {
            Migrate::read(of_command, environment).map(Box::new).map(Parsed::Migrate)
        } else {
            Doctor::read(of_command, environment).map(Parsed::Doctor)
        };
    }
    let mut draft = Draft::default();
    let path = matches
        .get_one::<OsString>(CONFIG)
        .cloned()
        .filter(|path| !path.is_empty())
        .or_else(|| environment(CONFIG_ENVIRONMENT))
        .filter(|path| !path.is_empty());
    if let Some(path) = path {
        draft.add_file(read_file(Path::new(&path))?)?;
    }
    draft.add(from_environment(environment)?)?;
    draft.add(from_flags(&matches))?;
    draft.finish().map(Box::new).map(Parsed::Run)
}

fn command() -> Command {
    let mut command = Command::new("redis-failover")
        .bin_name("redis-failover")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(AFTER_HELP)
        // The last of several wins, as with the original's flags.
        .args_override_self(true)
        .disable_help_subcommand(true)
        .subcommand(doctor::command())
        .subcommand(migrate::command())
        .arg(
            Arg::new(CONFIG)
                .long(CONFIG)
                .value_name("FILE")
                .value_parser(value_parser!(OsString))
                .help("config file (TOML)"),
        );
    for (heading, settings) in SECTIONS {
        for setting in settings.iter().filter(|setting| setting.is_flag) {
            command = command.arg(
                Arg::new(setting.key)
                    .long(setting.key)
                    .value_name(setting.shown)
                    .help(setting.help)
                    .help_heading(*heading)
                    // So that a negative number is refused by the setting, which says why.
                    .allow_negative_numbers(true),
            );
        }
    }
    command
}

/// One dash or two are the same, as for the original; only single letters and negative numbers
/// keep their one dash.
fn with_two_dashes(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    args.map(|arg| {
        ended |= arg == "--";
        let bytes = arg.as_encoded_bytes();
        let is_long = bytes.len() > 2
            && bytes[0] == b'-'
            && (bytes[1].is_ascii_alphabetic() || bytes[1] == b'_');
        if ended || !is_long {
            return arg;
        }
        let mut long = OsString::from("-");
        long.push(arg);
        long
    })
    .collect()
}

fn from_environment(
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Given>, ConfigError> {
    let mut source = Vec::new();
    for setting in Setting::all() {
        let name = setting.environment();
        let Some(value) = environment(&name) else {
            continue;
        };
        let origin = Origin::Environment { name };
        let Ok(value) = value.into_string() else {
            return Err(origin.error("the value is not UTF-8"));
        };
        // Supervisors pass on variables that nobody filled in.
        if value.is_empty() && setting.key != "addr" {
            continue;
        }
        source.push(Given { setting, value: Value::Word(value), origin });
    }
    Ok(source)
}

fn from_flags(matches: &ArgMatches) -> Vec<Given> {
    Setting::all()
        .filter(|setting| setting.is_flag)
        .filter_map(|setting| {
            let value = matches.get_one::<String>(setting.key)?;
            Some(Given {
                setting,
                value: Value::Word(value.clone()),
                origin: Origin::Flag { name: setting.key },
            })
        })
        .collect()
}

/// What a command takes.
fn takes(command: &str) -> &'static str {
    if command == migrate::NAME { "--from and --to" } else { "--addr and a group" }
}

/// The parser's report without its advice and usage, and without values: a mistyped flag may
/// carry a password.
fn in_one_sentence(error: &clap::Error, of_command: Option<&str>) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let given = context(ContextKind::InvalidArg).unwrap_or_default();
    let name = given.split(['=', ' ']).next().unwrap_or_default();
    let is_flag = name.starts_with('-');
    let kind = error.kind();
    let setting = Setting::of_key(name.trim_start_matches('-'));
    if kind == ErrorKind::UnknownArgument
        && is_flag
        && let Some(Setting { key, is_flag: false, .. }) = setting
    {
        return format!(
            "{key} is no flag, since everyone on the machine could read it there: use {key}_file, \
             the environment or the config file"
        );
    }
    // A known flag is unknown to the parser when it stands behind `--`.
    if kind == ErrorKind::UnknownArgument && is_flag && setting.is_none() {
        return match context(ContextKind::SuggestedArg) {
            Some(other) => format!("there is no flag {name}, but there is {other}"),
            None => format!("there is no flag {name}"),
        };
    }
    if kind == ErrorKind::UnknownArgument
        && is_flag
        && let Some(command) = of_command
    {
        return format!("the command {command} has no flag {name}: it takes {}", takes(command));
    }
    let given = context(ContextKind::InvalidSubcommand).unwrap_or(given);
    if kind == ErrorKind::UnknownArgument && of_command == Some(doctor::NAME) {
        return format!(
            "\"{given}\" is one too many: the command doctor takes one group, or none for all"
        );
    }
    if kind == ErrorKind::MissingRequiredArgument && of_command == Some(migrate::NAME) {
        return format!("the command migrate needs {}", takes(migrate::NAME));
    }
    if matches!(kind, ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        return format!(
            "\"{given}\" stands alone: it is no flag, and there are no commands but doctor and migrate"
        );
    }
    if kind == ErrorKind::InvalidValue && is_flag {
        return format!("the flag {name} needs a value");
    }
    let report = error.to_string();
    let first = report.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}
