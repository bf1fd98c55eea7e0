//! Output: aligned columns for people, JSON for programs.

use super::CliError;
use control::socket::client::ClientError;
use control::socket::protocol::{ChangeKind, Changed, Forwarding};
use serde::Serialize;
use std::io::Write;
use unicode_width::UnicodeWidthStr;
use vswitch_core::config::protocol::PortStatus;

/// The output format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints a value as JSON, or the text that `text` makes.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string())
        } else {
            text(value)
        };
        line(&text);
    }

    /// Prints rows under headings, or that there are none.
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

    /// Prints the result of a change.
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
            text.extend(warnings(&changed.warnings));
            text.retain(|line| !line.is_empty());
            text.join("\n")
        });
    }

    /// Prints why a command failed.
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

/// What cannot work after a change, one line each.
pub(crate) fn warnings(warnings: &[String]) -> impl Iterator<Item = String> {
    warnings.iter().map(|warning| format!("WARNING: {warning}"))
}

/// The effect of a change on the forwarding plane, as a line; empty if there was none.
pub(crate) fn forwarding(forwarding: &Forwarding) -> String {
    match forwarding {
        Forwarding::Unchanged => String::new(),
        Forwarding::Pending { reason } => {
            format!("stored, NOT in force yet: {reason}\nit will be as soon as the forwarding plane is available")
        }
        Forwarding::Applied(applied) => {
            let mut text = format!(
                "in force: generation {}, compiled in {}, every worker crossed in {}",
                applied.generation,
                duration(applied.compile_ns),
                duration(applied.barrier_ns)
            );
            applied.ports_down.iter().for_each(|port| text.push_str(&format!("\n{}", port_down(port))));
            text
        }
    }
}

/// A port that is not up, and why.
pub(crate) fn port_down(port: &PortStatus) -> String {
    format!("port of {} is down: {}", port.eni, port.error.as_deref().unwrap_or("not up yet"))
}

/// A time in a suitable unit.
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
    let mut columns = Columns::under(headings);
    rows.for_each(|row| columns.push(row));
    columns.lines().collect::<Vec<_>>().join("\n")
}

/// Rows under headings that arrive page by page: a column is as wide as its widest cell on any page.
pub(crate) struct Columns<const N: usize> {
    /// Cells end with [`CELL_END`] and rows with a line feed, which no cell contains. A single string, since there may
    /// be many rows.
    cells: String,
    widths: [usize; N],
}

const CELL_END: char = '\t';
const GAP: usize = 2;

impl<const N: usize> Columns<N> {
    pub(crate) fn under(headings: [&str; N]) -> Self {
        let mut columns = Self { cells: String::new(), widths: [0; N] };
        columns.push(headings.map(str::to_uppercase));
        columns
    }

    pub(crate) fn push(&mut self, row: [String; N]) {
        for (cell, width) in row.into_iter().zip(&mut self.widths) {
            // Replace what would break the line or column, such as a line feed in an error of the kernel.
            let cell = cell.replace(char::is_control, " ");
            *width = (*width).max(cell.width());
            self.cells.push_str(&cell);
            self.cells.push(CELL_END);
        }
        self.cells.push('\n');
    }

    /// The headings and all rows.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.cells.lines().map(|row| {
            let mut line = String::new();
            for (cell, width) in row.split(CELL_END).zip(self.widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + GAP - cell.width()));
            }
            line.trim_end().to_owned()
        })
    }
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

/// Prints a line. It is no error if the reader is gone.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints many lines, as long as there is a reader.
pub(crate) fn lines(rows: impl Iterator<Item = String>) {
    let mut writer = std::io::BufWriter::new(std::io::stdout().lock());
    let _ = rows.into_iter().try_for_each(|row| writeln!(writer, "{row}")).and_then(|()| writer.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_the_widest_cell_of_any_page() {
        let mut columns = Columns::under(["eni", "name", "state"]);
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        columns.push(row(["eni-a", "", "up"]));
        // The second page is wider, and wide characters take two columns.
        columns.push(row(["eni-with-a-long-name", "\u{7f51}\u{5173}", "down: gone\nfor good"]));
        columns.push(row(["eni-c", "x", "up"]));
        let lines: Vec<String> = columns.lines().collect();
        assert_eq!(
            lines,
            [
                "ENI                   NAME  STATE",
                "eni-a                       up",
                "eni-with-a-long-name  \u{7f51}\u{5173}  down: gone for good",
                "eni-c                 x     up",
            ]
        );
    }
}
