//! The access key that is generated if none is configured.

use crate::ecs::{AccessKey, FIRST_ACCOUNT};
use crate::environment::Environment;
use crate::os::small_file;
use std::fs;
use std::io;
use std::path::Path;

/// The file in the data directory.
const FILE: &str = "access-key.toml";

/// The key in the data directory; a new one, which is announced once, if there is none yet.
pub(super) fn kept_key(data_dir: &Path) -> Result<AccessKey, String> {
    let path = data_dir.join(FILE);
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::read_to_string(&path) {
        // An older version left an empty file if the disk was full; nobody was told that key.
        Ok(text) if !text.trim().is_empty() => return toml::from_str(&text).map_err(|error| fault(&error)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault(&error)),
    }
    let environment = Environment::real();
    let letters = |prefix: &str| environment.new_id(prefix).replace('-', "");
    let key = AccessKey {
        id: letters("SLUICE"),
        secret: format!("{}{}{}", letters(""), letters(""), letters("")),
        account: FIRST_ACCOUNT.into(),
        security_token: None,
    };
    let text = toml::to_string(&key).map_err(|error| fault(&error))?;
    small_file::write(&path, text.as_bytes()).map_err(|error| fault(&error))?;
    // Announcements may end up in a log. The secret is in the file, which only this user can read.
    crate::logging::announce(&format!("access key {} made; its secret is in {}", key.id, path.display()));
    Ok(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_also_where_an_earlier_start_had_no_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "").unwrap();
        let made = kept_key(folder.path()).unwrap();
        assert!(!made.secret.is_empty());
        assert_eq!(kept_key(folder.path()).unwrap().secret, made.secret);
        fs::write(folder.path().join(FILE), "id = 7").unwrap();
        assert!(kept_key(folder.path()).unwrap_err().contains(FILE), "what somebody wrote is never replaced");
    }
}
