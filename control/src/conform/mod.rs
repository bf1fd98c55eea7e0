//! The conformance kit: runs cases of security-group behaviour through the forwarding plane's own core.
//!
//! A case is a small world of groups and ENIs, a packet or a timed sequence, and what a conforming implementation
//! decides. `docs/conformance.md` describes the format.

mod api;
mod fake_switch;
mod format;
mod frame;
mod run;
mod world;

pub use api::ApiRig;
pub use format::{Case, CaseError, read_cases};
pub use run::{CaseOutcome, CaseReport, run_case};

use std::path::Path;

/// All cases of the files, in order, each with its report.
///
/// # Errors
/// The first file that cannot be read or is no list of cases, by name.
pub fn run_files<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<CaseReport>, CaseError> {
    let mut reports = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| CaseError(format!("{}: {error}", path.display())))?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let cases = read_cases(&text, is_toml).map_err(|error| CaseError(format!("{}: {error}", path.display())))?;
        reports.extend(cases.iter().map(run_case));
    }
    Ok(reports)
}
