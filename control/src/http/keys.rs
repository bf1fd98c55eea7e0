//! The access key that is made where none is configured.

use crate::api::{AccessKey, FIRST_ACCOUNT};
use crate::environment::Environment;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the data directory.
const FILE: &str = "access-key.toml";

/// The key that is kept in the data directory; a new one, told once, if there is none yet.
pub(super) fn kept_key(data_dir: &Path) -> Result<AccessKey, String> {
    let path = data_dir.join(FILE);
    let fault = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => return toml::from_str(&text).map_err(|error| fault(&error)),
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
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|error| fault(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| fault(&error))?;
    crate::cli::tell(&format!("access key made, and kept in {}: id {} secret {}", path.display(), key.id, key.secret));
    Ok(key)
}
