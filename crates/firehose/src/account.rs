//! Who one is at a server: from the command line, a file, the environment or the URL, in this order.

use firehose_client::{Account, Roots, Url};

use crate::cli;
use crate::exit::Failure;

const PASSWORD_VARIABLE: &str = "FIREHOSE_PASSWORD";

/// The user and the password to use at this server.
pub fn account(args: &cli::Account, url: &Url) -> Result<Account, Failure> {
    let user = args.user.clone().or_else(|| url.user.clone());
    let password = match (&args.password, &args.password_file) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", path.display())))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        (None, None) => url.password.clone().or_else(|| std::env::var(PASSWORD_VARIABLE).ok()),
    };
    match (&user, &args.password) {
        (None, Some(_)) => Err(Failure::usage("a password without a user: give -u USER too")),
        // the variable may be set for another command
        (None, None) => Ok(Account { user: None, password: None }),
        _ => Ok(Account { user, password }),
    }
}

/// Who may vouch for the server.
pub fn roots(args: &cli::Account) -> Roots {
    args.cafile.clone().map_or(Roots::System, Roots::File)
}

/// The URL: the one given, else `$FIREHOSE_URL`, else this.
pub fn url(given: Option<&str>, default: &str) -> Result<Url, Failure> {
    let variable = std::env::var("FIREHOSE_URL").ok().filter(|text| !text.is_empty());
    let text = given.map(str::to_owned).or(variable);
    Ok(Url::parse(text.as_deref().unwrap_or(default))?)
}
