//! `firehose passwd`: edits a password file, as mosquitto_passwd does.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use firehose_auth::{HashKind, PasswordFile};

use crate::cli::{self, Passwd};
use crate::exit::Failure;

/// The longest password that is read.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Does what the options say, and replaces the file as a whole.
pub fn run(args: &Passwd) -> Result<(), Failure> {
    let kind = match args.hash {
        cli::HashKind::Argon2id => HashKind::Argon2id,
        cli::HashKind::Sha512Pbkdf2 => HashKind::Sha512Pbkdf2,
    };
    if args.upgrade {
        let file = PasswordFile::read_plain(&args.file, kind).map_err(Failure::usage)?;
        return write(&file, &args.file);
    }
    let user = args.user.as_deref().unwrap_or_default();
    let mut file = match args.create {
        true => PasswordFile::default(),
        false => PasswordFile::read(&args.file).map_err(|error| {
            let hint = if args.file.exists() { "" } else { " (-c creates it)" };
            Failure::usage(format!("{error}{hint}"))
        })?,
    };
    if args.delete {
        if !file.delete(user) {
            return Err(Failure::runtime(format!("{}: there is no user {user:?}", args.file.display())));
        }
        return write(&file, &args.file);
    }
    let password = match (args.batch, &args.password) {
        (true, Some(password)) => password.clone(),
        _ => ask()?,
    };
    file.set(user, password.as_bytes(), kind).map_err(Failure::usage)?;
    write(&file, &args.file)
}

fn write(file: &PasswordFile, path: &Path) -> Result<(), Failure> {
    file.write(path)
        .map_err(|error| Failure::runtime(format!("{}: cannot be written: {error}", path.display())))
}

/// The password: twice from a terminal, where it is not shown; once from anything else.
fn ask() -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let hidden = Hidden::new();
    let first = prompt("Password: ")?;
    let second = prompt("Reenter password: ")?;
    drop(hidden);
    match first == second {
        true => Ok(first),
        false => Err(Failure::usage("the passwords are not the same: nothing was changed")),
    }
}

fn prompt(words: &str) -> Result<String, Failure> {
    eprint!("{words}");
    io::stderr().flush()?;
    let line = line();
    eprintln!();
    line
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::runtime(format!("the password cannot be read: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    match password.len() {
        0 => Err(Failure::usage("an empty password: nothing was changed")),
        1..=PASSWORD_BYTES_MAX => Ok(password.to_owned()),
        _ => Err(Failure::usage("the password is too long: nothing was changed")),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Option<rustix::termios::Termios>);

impl Hidden {
    fn new() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Hidden(None) };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        match tcsetattr(&stdin, OptionalActions::Now, &hidden) {
            Ok(()) => Hidden(Some(before)),
            Err(_) => Hidden(None),
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // if even this fails, the user's shell puts its terminal right
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}
