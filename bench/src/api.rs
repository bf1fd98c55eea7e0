//! The HTTP interface under load: signed rule changes of many clients, each answered once the forwarding plane runs it.
//!
//! Both planes are started as a user starts them, as processes of this program, with folders of their own and all on
//! one core; the clients have the other cores. Every call is signed (ACS3-HMAC-SHA256) and waits for its answer.

mod planes;

use clap::Args;
use control::ecs::client::{ApiClient, HttpAnswer};
use control::ecs::{AccessKey, FIRST_ACCOUNT, Product};
use hdrhistogram::Histogram;
use planes::ApiPlanes;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Options of `sluice bench api --enis 1000 --clients 50`.
#[derive(Clone, Debug, Args)]
pub struct ApiArguments {
    /// ENIs that the switch has, spread over the groups.
    #[arg(long, default_value_t = 1000)]
    enis: usize,
    /// Security groups, which the clients use in turn.
    #[arg(long, default_value_t = 50)]
    groups: usize,
    /// Rules that each group keeps throughout.
    #[arg(long, default_value_t = 20)]
    rules: usize,
    /// Clients at once, each with one connection and one call at a time.
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Calls to measure: half of them authorize a rule, half revoke it.
    #[arg(long, default_value_t = 20_000)]
    calls: u64,
    /// The core that both planes share.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..1024))]
    core: u16,
    /// Where to keep the state during the measurement, since the speed of the disk counts. A new folder is made there,
    /// and removed afterwards.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ApiReport {
    enis: usize,
    groups: usize,
    rules: usize,
    clients: usize,
    calls: u64,
    seconds: f64,
    calls_per_second: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    /// Processor time of one call, by plane, which other load on the machine does not change.
    control_cpu_us: f64,
    vswitch_cpu_us: f64,
    /// Calls that one core could handle if it did nothing else.
    calls_per_core_second: f64,
}

impl ApiReport {
    /// The report as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The report as text.
    pub fn text(&self) -> String {
        format!(
            "{} ENIs, {} groups of {} rules, {} clients: {:.0} signed rule changes/s; answered within {:.1} ms (median), \
             {:.1} (p99), {:.1} (p99.9), {:.1} (longest)\nprocessor time of a call: control plane {:.0} µs, forwarding \
             plane {:.0} µs; {:.0} calls/s of one core",
            self.enis,
            self.groups,
            self.rules,
            self.clients,
            self.calls_per_second,
            self.p50_us as f64 / 1e3,
            self.p99_us as f64 / 1e3,
            self.p999_us as f64 / 1e3,
            self.max_us as f64 / 1e3,
            self.control_cpu_us,
            self.vswitch_cpu_us,
            self.calls_per_core_second
        )
    }
}

/// Runs the measurement.
///
/// # Errors
/// Planes that do not start, or a call without a successful response: the times would mean nothing then.
pub fn run(arguments: &ApiArguments) -> Result<ApiReport, String> {
    let groups = arguments.groups.max(1);
    let key = AccessKey {
        id: "bench".into(),
        secret: "bench-secret".into(),
        account: FIRST_ACCOUNT.into(),
        security_token: None,
    };
    let planes = ApiPlanes::start(arguments.folder.as_deref(), &key, usize::from(arguments.core))?;
    let address = planes.address();
    let ids = build(arguments, groups, address, &key)?;
    let progress = ApiProgress::new("calls", arguments.calls);
    let (before, started) = (planes.processor_times()?, Instant::now());
    let share = arguments.calls.div_ceil(arguments.clients.max(1) as u64).div_ceil(2);
    let histogram = at_once(arguments.clients.max(1), |number| {
        let mut client = connect(address, &key)?;
        change_rules(&mut client, &ids[number % ids.len()], number, share, &progress)
    })?;
    let (elapsed, after) = (started.elapsed(), planes.processor_times()?);
    progress.end();
    let mut whole: Histogram<u64> = new_histogram()?;
    for part in &histogram {
        whole.add(part).map_err(|error| error.to_string())?;
    }
    let calls = whole.len();
    let at = |quantile: f64| whole.value_at_quantile(quantile);
    let of_a_call = |spent: Duration| spent.as_secs_f64() * 1e6 / calls as f64;
    let (control_cpu_us, vswitch_cpu_us) = (of_a_call(after[0] - before[0]), of_a_call(after[1] - before[1]));
    Ok(ApiReport {
        enis: arguments.enis,
        groups,
        rules: arguments.rules,
        clients: arguments.clients,
        calls,
        seconds: elapsed.as_secs_f64(),
        calls_per_second: calls as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: whole.max(),
        control_cpu_us,
        vswitch_cpu_us,
        calls_per_core_second: 1e6 / (control_cpu_us + vswitch_cpu_us),
    })
}

/// Makes a VPC with groups, their rules and ENIs through the interface. Returns the groups' identifiers.
fn build(arguments: &ApiArguments, groups: usize, address: SocketAddr, key: &AccessKey) -> Result<Vec<String>, String> {
    let mut client = connect(address, key)?;
    let vpc = id_of(&mut client, "VpcId", Product::Vpc, "CreateVpc", &[("CidrBlock", "10.0.0.0/8")])?;
    let zone = ("ZoneId", "cn-hangzhou-a");
    let within = [("CidrBlock", "10.0.0.0/16"), ("VpcId", vpc.as_str()), zone];
    let vswitch = id_of(&mut client, "VSwitchId", Product::Vpc, "CreateVSwitch", &within)?;
    let mut ids = Vec::new();
    for group in 0..groups {
        let id = id_of(&mut client, "SecurityGroupId", Product::Ecs, "CreateSecurityGroup", &[("VpcId", &vpc)])?;
        for place in 0..arguments.rules {
            let cidr = format!("172.16.{}.{}/32", group % 256, place % 256);
            let ports = format!("{0}/{0}", 1000 + place);
            call(&mut client, Product::Ecs, "AuthorizeSecurityGroup", &rule(&id, &cidr, &ports))?;
        }
        ids.push(id);
    }
    let progress = ApiProgress::new("ENIs", arguments.enis as u64);
    let next = AtomicU64::new(0);
    at_once(16, |_| {
        let mut client = connect(address, key)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            if number >= arguments.enis {
                return Ok(());
            }
            let group = ids[number % ids.len()].as_str();
            call(
                &mut client,
                Product::Ecs,
                "CreateNetworkInterface",
                &[("VSwitchId", &vswitch), ("SecurityGroupId", group)],
            )?;
            progress.step();
        }
    })?;
    progress.end();
    Ok(ids)
}

fn connect(address: SocketAddr, key: &AccessKey) -> Result<ApiClient, String> {
    ApiClient::connect(address, key.clone()).map_err(|error| format!("{address} cannot be reached: {error}"))
}

/// Makes a call and returns its response, if it succeeds.
fn call(
    client: &mut ApiClient,
    product: Product,
    action: &str,
    parameters: &[(&str, &str)],
) -> Result<HttpAnswer, String> {
    let parameters = [parameters, &[("RegionId", "cn-hangzhou")]].concat();
    let answer = client.call(product, action, &parameters).map_err(|error| format!("{action}: {error}"))?;
    if answer.status == 200 { Ok(answer) } else { Err(format!("{action}: {} {}", answer.status, answer.body)) }
}

/// Makes a call whose response has the identifier of a new object in `field`.
fn id_of(
    client: &mut ApiClient,
    field: &str,
    product: Product,
    action: &str,
    parameters: &[(&str, &str)],
) -> Result<String, String> {
    let answer = call(client, product, action, parameters)?.json();
    answer[field].as_str().map(str::to_owned).ok_or_else(|| format!("{action} answered without {field}: {answer}"))
}

fn rule<'a>(group: &'a str, cidr: &'a str, ports: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("SecurityGroupId", group),
        ("Permissions.1.IpProtocol", "TCP"),
        ("Permissions.1.PortRange", ports),
        ("Permissions.1.SourceCidrIp", cidr),
    ]
}

/// One client's calls, and how long each took, µs.
fn change_rules(
    client: &mut ApiClient,
    group: &str,
    number: usize,
    rounds: u64,
    progress: &ApiProgress,
) -> Result<Histogram<u64>, String> {
    let mut histogram = new_histogram()?;
    for round in 0..rounds {
        let cidr = format!("192.{}.{}.{}/32", number % 256, round / 256 % 256, round % 256);
        for action in ["AuthorizeSecurityGroup", "RevokeSecurityGroup"] {
            let started = Instant::now();
            call(client, Product::Ecs, action, &rule(group, &cidr, "80/80"))?;
            histogram.saturating_record(started.elapsed().as_micros() as u64);
            progress.step();
        }
    }
    Ok(histogram)
}

fn new_histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| error.to_string())
}

/// The results of `count` threads, or the first error.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> Result<T, String> + Sync) -> Result<Vec<T>, String> {
    let gone = || Err("a client broke off".to_owned());
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| gone())).collect()
    })
}

/// A progress display on a terminal.
struct ApiProgress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    shown: bool,
}

impl ApiProgress {
    fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, done: AtomicU64::new(0), shown: std::io::stderr().is_terminal() }
    }

    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown && done.is_multiple_of(100) {
            eprint!("\r{done} of {} {}", self.total, self.what);
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r{:40}\r", "");
        }
    }
}
