//! The reference pages, from the same descriptions as the command line. `WRITE_DOCS=1 cargo test -p sluice reference`
//! renews them.

use super::CliArguments;
use clap::{Arg, Args, Command, CommandFactory, Parser};
use control::command::{
    EipAllocate, EniCreate, ForwardAdd, GroupCreate, NatCreate, PeeringCreate, PortListCreate, PortListEntry,
    PortSpecification, PrefixListCreate, PrefixListEntry, RateLimitsChange, RuleSpec, SettingsModify, TimeoutsChange,
    TrackingChange, UplinkCreate, VpcCreate, VpcRouteAdd, VswitchCreate,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

const OBJECTS: [&str; 13] = [
    "vpc",
    "vswitch",
    "eni",
    "sg",
    "rule",
    "prefix-list",
    "port-list",
    "uplink",
    "eip",
    "nat",
    "forward",
    "peering",
    "settings",
];
const COMMANDS_HEAD: &str = "\
# Commands

Made from what `--help` says: `WRITE_DOCS=1 cargo test -p sluice reference`. `--json` and the folders of the first table
work with every command. Where a parameter has another name in a [lab file](lab-file.md) and on the control socket than
its option, that *key* stands beside it.
";
const BEGIN: &str = "<!-- Made by `WRITE_DOCS=1 cargo test -p sluice reference` -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Fails if the page is not `text`, or writes it if the environment asks for that.
fn hold(name: &str, text: &str) {
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(page(name), text).unwrap();
    }
    let page = std::fs::read_to_string(page(name)).unwrap_or_default();
    assert!(page == text, "docs/{name} is stale: WRITE_DOCS=1 cargo test -p sluice reference");
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The description of an argument, with the possible values if these are not in it.
fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = cell(&help.map(ToString::to_string).unwrap_or_default());
    let values = argument.get_possible_values().into_iter().map(|value| format!("`{}`", value.get_name()));
    let values: Vec<String> = values.filter(|value| value != "`true`" && value != "`false`").collect();
    if argument.get_action().takes_values() && values.iter().any(|value| !text.contains(value.as_str())) {
        write!(text, ": {}", values.join(", ")).unwrap();
    }
    text
}

fn default(argument: &Arg) -> String {
    let values = argument.get_default_values().iter().map(|value| value.to_string_lossy());
    let values: String = values.map(|value| format!("; `{value}` if absent")).collect();
    if argument.get_action().takes_values() { values } else { String::new() }
}

/// The form of an argument, and its key if that differs.
fn option(argument: &Arg, has_key: bool) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let value = names.first().map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string);
    let Some(long) = argument.get_long() else { return format!("`{value}`") };
    let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let takes_value = argument.get_num_args().is_none_or(|count| count.max_values() > 0);
    let value = if takes_value && argument.get_action().takes_values() { format!(" {value}") } else { String::new() };
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    let aliases: String = aliases.iter().map(|alias| format!(", `--{alias}`")).collect();
    let key = argument.get_id().as_str();
    let key = if has_key && key != long.replace('-', "_") { format!(", key `{key}`") } else { String::new() };
    format!("{short}`--{long}{value}`{aliases}{key}")
}

const fn needed_if(is_needed: bool) -> &'static str {
    if is_needed { "**Required.** " } else { "" }
}

fn table(text: &mut String, command: &Command, has_key: bool) {
    let shown = |argument: &&Arg| !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str());
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if arguments.is_empty() {
        return;
    }
    text.push_str("\n| option | meaning |\n| --- | --- |\n");
    for argument in arguments {
        let (option, meaning, default) = (option(argument, has_key), meaning(argument), default(argument));
        writeln!(text, "| {option} | {}{meaning}{default} |", needed_if(argument.is_required_set())).unwrap();
    }
}

fn section(text: &mut String, path: &str, command: &Command) {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    writeln!(text, "\n## `{path}`\n\n{about}").unwrap();
    if !about.ends_with(['.', '`']) {
        text.pop();
        text.push_str(".\n");
    }
    let object = path.split(' ').nth(1).unwrap_or_default();
    table(text, command, OBJECTS.contains(&object));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        section(text, &format!("{path} {}", verb.get_name()), verb);
    }
}

#[test]
fn the_reference_of_commands_is_up_to_date() {
    // The command is not built, so that common options are not repeated for each.
    let mut text = COMMANDS_HEAD.to_owned();
    section(&mut text, "sluice", &CliArguments::command());
    hold("commands.md", &text);
}

/// The keys without which a table cannot be parsed, according to serde: all are text, except for one number.
fn needed<T: DeserializeOwned>() -> BTreeSet<String> {
    let mut given = Map::new();
    loop {
        let error = match serde_json::from_value::<T>(Value::Object(given.clone())) {
            Ok(_) => return given.into_iter().map(|(key, _)| key).collect(),
            Err(error) => error.to_string(),
        };
        let key = error.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let key = key.unwrap_or_else(|| panic!("{error}"));
        given.insert(key.into(), if key == "max_entries" { 1.into() } else { "".into() });
    }
}

/// The keys of a table in a lab file, without those of nested tables.
fn keys<T: Args + DeserializeOwned>(text: &mut String, title: &str, is_named: bool, inner: &[&str]) {
    let mut needed = needed::<T>();
    if is_named {
        needed.insert("id".into());
    }
    writeln!(text, "\n{title}\n\n| key | meaning |\n| --- | --- |").unwrap();
    let command = T::augment_args(Command::new("table"));
    for argument in command.get_arguments().filter(|argument| !inner.contains(&argument.get_id().as_str())) {
        let key = argument.get_id().as_str();
        // The one difference in lab files: an object is found again by its identifier.
        let meaning = meaning(argument);
        let meaning = if is_named && key == "id" { meaning.replace("; made up if absent", "") } else { meaning };
        writeln!(text, "| `{key}` | {}{meaning} |", needed_if(needed.contains(key))).unwrap();
    }
}

fn ids<T: Args>() -> Vec<String> {
    let command = T::augment_args(Command::new("table"));
    command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
}

#[test]
fn the_reference_of_lab_files_is_up_to_date() {
    let mut text = BEGIN.to_owned();
    keys::<SettingsModify>(&mut text, "`[settings]`", false, &[]);
    keys::<VpcCreate>(&mut text, "`[[vpc]]`", true, &[]);
    keys::<VswitchCreate>(&mut text, "`[[vswitch]]`", true, &[]);
    keys::<PrefixListCreate>(&mut text, "`[[prefix_list]]`", true, &[]);
    keys::<PrefixListEntry>(&mut text, "Each of the `entries` of a `prefix_list`", false, &[]);
    keys::<PortListCreate>(&mut text, "`[[port_list]]`", true, &[]);
    keys::<PortListEntry>(&mut text, "Each of the `entries` of a `port_list`", false, &[]);
    keys::<GroupCreate>(&mut text, "`[[group]]`, which has `ingress` and `egress` besides", true, &[]);
    keys::<RuleSpec>(&mut text, "Each rule of `ingress` or `egress` of a `group`", false, &[]);
    let tables = [ids::<TimeoutsChange>(), ids::<TrackingChange>(), ids::<RateLimitsChange>()].concat();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let title = "`[[eni]]`, which has the tables `timeouts`, `tracking` and `rate_limits` besides, and a port by the keys after them";
    keys::<EniCreate>(&mut text, title, true, &tables);
    keys::<TimeoutsChange>(&mut text, "`timeouts` of an `eni`", false, &[]);
    keys::<TrackingChange>(&mut text, "`tracking` of an `eni`", false, &[]);
    keys::<RateLimitsChange>(&mut text, "`rate_limits` of an `eni`", false, &[]);
    keys::<PortSpecification>(&mut text, "The port of an `eni`", false, &[]);
    keys::<VpcRouteAdd>(&mut text, "`[[route]]`", false, &[]);
    keys::<UplinkCreate>(&mut text, "`[[uplink]]`", true, &[]);
    keys::<NatCreate>(&mut text, "`[[nat]]`, which has `sources` besides", true, &[]);
    keys::<EipAllocate>(&mut text, "`[[eip]]`, which has `target` and `private_ip` besides", true, &[]);
    keys::<ForwardAdd>(&mut text, "`[[forward]]`", true, &[]);
    keys::<PeeringCreate>(&mut text, "`[[peering]]`", true, &[]);
    text.push('\n');
    text.push_str(END);
    let page = std::fs::read_to_string(page("lab-file.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page says where it is");
    let (_, after) = rest.split_once(END).expect("the page says where it ends");
    hold("lab-file.md", &format!("{before}{text}{after}"));
}

#[test]
fn options_are_sound_and_those_of_old_are_taken() {
    CliArguments::command().debug_assert();
    for line in [
        "vpc create --id vpc-a --cidr 10.0.0.0/8 --ipv6-cidr fd00::/56 --name a --description b",
        "vpc add-route vpc-a 0.0.0.0/0 eni-a",
        "vswitch create --vpc vpc-a --cidr 10.0.0.0/24",
        "eni create --vswitch vsw-a --ip 10.0.0.1 --secondary-ip 10.0.0.2 --secondary-ip 10.0.0.3 --ipv6 fd00::1 \
         --ipv6-count 2 --mac 02:00:00:00:00:01 --group sg-a --no-source-dest-check --sessions-max 5 --udp-s 60 \
         --sessions-guaranteed 1 --new-sessions-per-s 0 --tcp-window-check true --namespace a --mtu 1400 --no-configure",
        "eni modify eni-a --group sg-a --group sg-b --source-dest-check false --tcp-closed-s 3 --name b",
        "eni attach eni-a --host-interface veth0 --namespace b",
        "port attach eni-a --stream /run/a.sock --socket-user libvirt-qemu --mtu 1400",
        "port attach eni-a --stream /run/a.sock --client",
        "sg create --vpc vpc-a --kind basic --inner-access drop --service-managed --name a",
        "sg modify sg-a --service-managed false",
        "rule add sg-a ingress --id sgr-a --protocol tcp --ports 80 --peer sg-b --policy drop --priority 2 --local \
         10.0.0.1 --source-ports 1024/65535 --description c",
        "rule authorize sg-a egress --protocol tcp --ports prl-a --to 0.0.0.0/0",
        "rule modify sg-a sgr-a --from pl-a --ports 80-90",
        "rule list sg-a --direction ingress",
        "prefix-list create --name a --entry 192.0.2.0/24 --entry 198.51.100.0/24",
        "port-list modify prl-a --add 80 --remove 443/443",
        "settings modify --smtp-closed true --pmtud-exempt always --timeout-profile aws --icmp-timeout-s 20",
        "uplink create --vpc vpc-a --masquerade --addresses 203.0.113.0/24 198.51.100.0/24 --nat-filtering endpoint",
        "uplink create --vpc vpc-a --kind interface --device eth1 --address 192.0.2.2/24 --next-hop 192.0.2.1 --nat none",
        "uplink modify upl-a --masquerade false --nat-port-blocks 9",
        "eip allocate --address 203.0.113.7 --name web",
        "eip associate eip-a eni-a --private-ip 10.0.0.5",
        "nat add-source ngw-a --cidr 10.0.0.0/24 --address 203.0.113.8",
        "forward add --vpc vpc-a --protocol udp --ports 53 --to 10.0.0.5",
        "peering create vpc-a vpc-b",
        "workers set 2 --lanes 1",
        "stats eni-a",
    ] {
        let words = std::iter::once("sluice").chain(line.split_whitespace());
        CliArguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "eni create --vswitch vsw-a --host-interface veth0 --no-configure",
        "port attach eni-a --stream /run/a.sock --namespace a",
        "port attach eni-a --client",
        "settings modify --fast-path maybe",
        "uplink create --vpc vpc-a --kind tunnel",
        "nat add-source ngw-a --cidr 10.0.0.0/24 --vswitch vsw-a",
    ] {
        let words = std::iter::once("sluice").chain(line.split_whitespace());
        assert!(CliArguments::try_parse_from(words).is_err(), "{line}");
    }
}
