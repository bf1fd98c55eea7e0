//! How answers are shown: aligned columns for people, JSON for programs.

use super::CliError;
use comfy_table::{Table, presets};
use control::socket::client::ClientError;
use control::socket::protocol::{ChangeKind, Changed, Forwarding};
use serde::Serialize;
use std::io::Write;

/// The chosen way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Shows a value: as JSON, or as `text` tells it.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
        } else {
            text(value)
        };
        line(&text);
    }

    /// Shows rows under headings, or that there are none.
    pub(crate) fn table<T: Serialize, const N: usize>(
        self,
        items: &[T],
        headings: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) {
        self.show(
            &items,
            |items| {
                if items.is_empty() { "none".to_owned() } else { columns(headings, items.iter().map(row)) }
            },
        );
    }

    /// Shows what became of a change.
    pub(crate) fn changed(self, changed: &Changed) {
        self.show(changed, |changed| {
            let mut text: Vec<String> = changed
                .objects
                .iter()
                .map(|object| {
                    let change = match object.change {
                        ChangeKind::Created => "created",
                        ChangeKind::Modified => "changed",
                        ChangeKind::Deleted => "deleted",
                    };
                    let group = object.group.as_ref().map(|group| format!(" of {group}")).unwrap_or_default();
                    format!("{} {}{group} {change}", object.kind, object.id).replace("  ", " ")
                })
                .collect();
            if text.is_empty() {
                text.push("nothing to change".into());
            }
            text.push(forwarding(&changed.forwarding));
            text.retain(|line| !line.is_empty());
            text.join("\n")
        });
    }

    /// Shows why a command failed.
    pub(crate) fn error(self, error: &CliError) {
        match (self.json, error) {
            (true, CliError::Client(ClientError::Refused(refused))) => {
                let text = serde_json::json!({ "error": refused });
                line(&text.to_string());
            }
            (true, error) => line(&serde_json::json!({ "error": { "message": error.to_string() } }).to_string()),
            (false, error) => eprintln!("sluice: {error}"),
        }
    }
}

/// What the forwarding plane made of a change, in a line; nothing where it had nothing to do.
pub(crate) fn forwarding(forwarding: &Forwarding) -> String {
    match forwarding {
        Forwarding::Unchanged => String::new(),
        Forwarding::Pending { reason } => {
            format!("stored, NOT in force yet: {reason}\nit will be as soon as the forwarding plane is back")
        }
        Forwarding::Applied(applied) => {
            let mut text = format!(
                "in force: generation {}, compiled in {}, every worker crossed in {}",
                applied.generation,
                duration(applied.compile_ns),
                duration(applied.barrier_ns)
            );
            for port in &applied.ports_down {
                let reason = port.error.as_deref().unwrap_or("not up yet");
                text.push_str(&format!("\nport of {} is down: {reason}", port.eni));
            }
            text
        }
    }
}

/// A time in the unit that suits it.
pub(crate) fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Rows in aligned columns under headings.
pub(crate) fn columns<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings.map(str::to_uppercase));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Several values in one cell.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "-".into() } else { texts.join(",") }
}

/// Name and value lines.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = fields.iter().filter(|(_, value)| !value.is_empty());
    lines.map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// Prints a line; a reader that went away is no error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
