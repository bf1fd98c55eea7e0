//! The reference page of the HTTP interface, from the table of actions.

use super::{ACTIONS, Action, ParameterSchema, Support};
use std::fmt::Write;

const HEAD: &str = "# The ECS interface

Sluice speaks the HTTP dialect of a public cloud's security groups, so that its official clients work unchanged: point
them at the address that `sluice control` prints, over http or https. [clients.md](clients.md) says how, for each. This
page is made from the program's own table of actions (`cargo test -p control --test api table`, with `WRITE_DOCS=1` to
renew it).

A parameter with `*` is required, `.N` is a list, `.N.{…}` a list of objects. Parameters do what the published interface
says, but for those of which an action's notes say that they are kept, refused or ignored.

An answer with the header `x-sluice-forwarding: pending` rests on something that is stored and not in force yet; the
header `x-sluice-forwarding-reason` says why. A change waits up to 5 s for the forwarding plane before it says so, and
so does one that changes nothing or repeats a client token. A question is answered at once, from what is stored.

";

/// The reference page, in Markdown.
pub fn reference_page() -> String {
    let mut text = String::from(HEAD);
    for action in ACTIONS {
        write_action(&mut text, action);
    }
    text
}

fn write_action(text: &mut String, action: &Action) {
    let fact = action.schema();
    let parameters: Vec<String> = fact.params.iter().map(parameter).collect();
    let errors: Vec<String> = fact.errors.iter().map(|error| format!("`{}` {}", error.code, error.http)).collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "## {} ({} {})\n", action.name, action.product.name(), action.product.version());
    let instead = fact.replaced_by.as_deref().map(|other| format!(" Deprecated: use {other}.")).unwrap_or_default();
    let _ = writeln!(text, "Tier: {}.{instead}\n", fact.tier);
    let _ = writeln!(text, "Parameters: {}\n", parameters.join(", "));
    let _ = writeln!(text, "Answer: `{}`\n", fact.response);
    if !errors.is_empty() {
        let _ = writeln!(text, "Refusals: {}\n", errors.join(", "));
    }
    let support: Vec<String> = fact.params.iter().flat_map(support).collect();
    for note in fact.notes.iter().chain(&support) {
        let _ = writeln!(text, "- {note}");
    }
    if !fact.notes.is_empty() || !support.is_empty() {
        text.push('\n');
    }
}

/// What happens to a parameter and its fields, where that differs from the published API.
fn support(fact: &ParameterSchema) -> Vec<String> {
    let told = |name: &str, support: &Support| match support {
        Support::Honoured => None,
        Support::Stored => Some(format!("`{name}` is kept as it is given, and read back.")),
        Support::Refused(code) => Some(format!("`{name}` is refused with `{code}`.")),
        Support::Ignored(reason) => Some(format!("`{name}` is ignored: {reason}.")),
    };
    let fields = fact.fields.iter().map(|field| (format!("{}.{}", fact.name, field.name), &field.support));
    let all = std::iter::once((fact.name.clone(), &fact.support)).chain(fields);
    all.filter_map(|(name, support)| told(&name, support)).collect()
}

fn parameter(fact: &ParameterSchema) -> String {
    let star = if fact.required { "*" } else { "" };
    let fields: Vec<&str> = fact.fields.iter().map(|field| field.name.as_str()).collect();
    match fact.kind.as_str() {
        "RepeatList<Object>" => format!("`{}.N.{{{}}}`{star}", fact.name, fields.join(",")),
        "RepeatList<String>" => format!("`{}.N`{star}", fact.name),
        "Object" => format!("`{}.{{{}}}`{star}", fact.name, fields.join(",")),
        _ => format!("`{}`{star}", fact.name),
    }
}
