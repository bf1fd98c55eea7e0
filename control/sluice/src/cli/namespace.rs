//! `sluice ns`.

use super::{CliError, CliSession};
use clap::Subcommand;
use control::socket::query::{Answer, EniFilter, EniShow, Query};
use std::ffi::OsString;
use vswitch_core::config::desired::DesiredPort;

/// The verbs of `sluice ns`.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceVerb {
    /// Run a command in the namespace that an ENI is in: `sluice ns exec eni-web -- ping -c1 10.0.1.20`.
    Exec {
        /// The ENI.
        eni: String,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// List ENIs and the namespaces they are in.
    List,
}

pub(super) fn run(session: &CliSession, verb: NamespaceVerb) -> Result<(), CliError> {
    if let NamespaceVerb::List = verb
        && let Answer::Enis(enis) = session.ask(Query::EniList(EniFilter::default()))?
    {
        let placed: Vec<_> = enis.into_iter().filter(|eni| device_of(eni.port.as_ref()).is_some()).collect();
        session.output.table(&placed, ["eni", "namespace", "device", "address"], |eni| {
            let (device, namespace) = device_of(eni.port.as_ref()).unwrap_or_default();
            let namespace = namespace.unwrap_or("the host's");
            [eni.id.to_string(), namespace.into(), device.into(), eni.primary_ip.to_string()]
        });
    }
    Ok(())
}

/// The name of the namespace that an ENI's port is in.
///
/// # Errors
/// There is none.
pub(crate) fn of_eni(arguments: &super::CliArguments, eni: &str) -> Result<String, CliError> {
    let mut client = control::socket::client::Client::connect(&arguments.paths().control_socket())?;
    let Answer::Eni(view) = client.ask(&Query::EniShow(EniShow { eni: eni.to_owned() }))? else {
        return Err(CliError::Usage(format!("no answer about {eni}")));
    };
    let namespace = device_of(view.port.as_ref()).and_then(|(_, namespace)| namespace.map(str::to_owned));
    namespace.ok_or_else(|| {
        let way_out = "attach it with `sluice eni attach ENI --namespace NAME`";
        CliError::Usage(format!("{eni} is in no namespace: {way_out}"))
    })
}

fn device_of(port: Option<&DesiredPort>) -> Option<(&str, Option<&str>)> {
    port.and_then(DesiredPort::device)
}
