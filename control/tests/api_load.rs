//! Many clients at once, broken clients, and whatever bytes: the HTTP interface keeps its order and its temper.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use control::conform::ApiRig;
use control::ecs::client::ApiClient;
use control::ecs::{
    AccessKey, ApiSettings, FIRST_ACCOUNT, Format, Parameters, Product, encode, read_pairs, v1_sign, v1_string_to_sign,
};
use control::environment::Environment;
use control::model::{Model, Quotas};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 50;
const ROUNDS: usize = 8;

fn rig() -> ApiRig {
    ApiRig::start(&Model::new(Quotas::default()), ApiSettings::default(), Quotas::default()).unwrap()
}

fn call(client: &mut ApiClient, product: Product, action: &str, parameters: &[(&str, &str)]) -> Value {
    let mut all = vec![("RegionId", "cn-hangzhou")];
    all.extend(parameters);
    let answer = client.call(product, action, &all).unwrap();
    assert_eq!(answer.status, 200, "{action}: {}", answer.body);
    answer.json()
}

#[test]
fn fifty_clients_at_once_leave_what_a_serial_order_would() {
    let rig = rig();
    let mut client = rig.client().unwrap();
    let vpc = call(&mut client, Product::Vpc, "CreateVpc", &[("CidrBlock", "10.0.0.0/8")])["VpcId"].clone();
    let vpc = vpc.as_str().unwrap();
    let shared = call(&mut client, Product::Ecs, "CreateSecurityGroup", &[("VpcId", vpc)])["SecurityGroupId"].clone();
    let shared = shared.as_str().unwrap();
    let started = Instant::now();
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = rig.client().unwrap();
                scope.spawn(move || one_client(&mut client, vpc, shared, number))
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let elapsed = started.elapsed();
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    println!("{} calls in {elapsed:?}: {:.0}/s, p99 {p99:?}", times.len(), times.len() as f64 / elapsed.as_secs_f64());
    // Each client leaves one rule in the shared group and nothing else.
    let shown = call(&mut client, Product::Ecs, "DescribeSecurityGroupAttribute", &[("SecurityGroupId", shared)]);
    assert_eq!(shown["Permissions"]["Permission"].as_array().unwrap().len(), CLIENTS);
    let groups = call(&mut client, Product::Ecs, "DescribeSecurityGroups", &[("VpcId", vpc)]);
    assert_eq!(groups["TotalCount"], 1);
}

fn one_client(client: &mut ApiClient, vpc: &str, shared: &str, number: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut timed = |client: &mut ApiClient, action: &str, parameters: &[(&str, &str)]| {
        let started = Instant::now();
        let answer = call(client, Product::Ecs, action, parameters);
        times.push(started.elapsed());
        answer
    };
    let created = timed(client, "CreateSecurityGroup", &[("VpcId", vpc)]);
    let group = created["SecurityGroupId"].as_str().unwrap();
    let cidr = format!("10.{number}.0.0/16");
    let rule = [("IpProtocol", "tcp"), ("PortRange", "80/80"), ("SourceCidrIp", cidr.as_str())];
    let of = |group| [[("SecurityGroupId", group)].as_slice(), &rule].concat();
    for _ in 0..ROUNDS {
        timed(client, "AuthorizeSecurityGroup", &of(group));
        timed(client, "AuthorizeSecurityGroup", &of(shared));
        timed(client, "RevokeSecurityGroup", &of(group));
    }
    timed(client, "DescribeSecurityGroups", &[("SecurityGroupId", group)]);
    timed(client, "DeleteSecurityGroup", &[("SecurityGroupId", group)]);
    times
}

#[test]
fn slow_and_broken_clients_cost_the_others_nothing() {
    let rig = rig();
    let mut silent = Vec::new();
    for text in ["", "POST", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", "GET /?Action=Describe"] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(rig.address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            silent.push(stream);
        }
    }
    let mut client = rig.client().unwrap();
    call(&mut client, Product::Ecs, "DescribeRegions", &[]);
    // A server that had waited for them would have closed them by then.
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    assert!(silent.iter().any(is_open), "none of them was waited for");
}

#[test]
fn strange_requests_are_refused_with_an_answer() {
    let rig = rig();
    let large = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    let long = format!("GET /?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(300 << 10));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /?Action=DescribeRegions&Version=2014-05-26 HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET /?Action=DescribeRegions&Version=1 HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /?a=%ff HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (
            "GET /?Version=2014-05-26&Action=DescribeRegions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n",
            "400",
        ),
        ("nonsense\r\n\r\n", "400"),
        (&large, "413"),
        (&long, "4"),
    ] {
        let mut stream = TcpStream::connect(rig.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that has heard enough may close before it has heard all.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        let begin: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{begin:?}: {answer}");
    }
}

/// One connection, one or several requests, and all that comes back.
fn exchange(rig: &ApiRig, requests: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // A server that has heard enough may close before it has heard all.
    let _ = stream.write_all(requests);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// An answer's status, and the code in its body, which has a message and the identifier of a request, too.
fn refusal(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    assert_eq!(length, Some(body.len()), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    for name in ["Message", "RequestId"] {
        assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {answer}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body["Code"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_no_request_is_refused_in_the_words_of_the_dialect() {
    let rig = rig();
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let long = "a".repeat(300 << 10);
    let describe = "Action=DescribeRegions&Version=2014-05-26";
    for (request, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "InvalidParameter"),
        ("GET / HTTP/3.7\r\nHost: x\r\n\r\n".to_owned(), 400, "InvalidParameter"),
        ("GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n".to_owned(), 400, "InvalidParameter"),
        ("NONSENSE / HTTP/1.0\r\n: empty\r\n\r\n".to_owned(), 400, "InvalidParameter"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431, "RequestTooLarge"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), 431, "RequestTooLarge"),
        (format!("GET /?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70 << 10)), 414, "RequestTooLarge"),
    ] {
        let begin: String = request.chars().take(60).collect();
        assert_eq!(refusal(&exchange(&rig, request.as_bytes())), (status, code.to_owned()), "{begin:?}");
    }
    // Behind a request that is one, in the same bytes.
    let both = format!("GET /?{describe}&Format=JSON HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n");
    let answers = exchange(&rig, both.as_bytes());
    let second = answers.rfind("HTTP/1.1 400").unwrap();
    assert_eq!(refusal(&answers[..second]).0, 400, "unsigned: {answers}");
    assert_eq!(refusal(&answers[second..]), (400, "InvalidParameter".into()), "{answers}");
}

#[test]
fn a_request_of_http_1_1_names_its_host_once() {
    let settings = ApiSettings { unsigned: true, ..ApiSettings::default() };
    let rig = ApiRig::start(&Model::new(Quotas::default()), settings, Quotas::default()).unwrap();
    let describe = "GET /?Action=DescribeRegions&Version=2014-05-26&Format=JSON";
    for hosts in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: other\r\n"] {
        let answer = exchange(&rig, format!("{describe} HTTP/1.1\r\nConnection: close\r\n{hosts}\r\n").as_bytes());
        assert_eq!(refusal(&answer), (400, "InvalidParameter".into()), "{hosts:?}");
        assert!(answer.contains("Host"), "{answer}");
    }
    for (version, host) in [("1.1", "Host: localhost\r\n"), ("1.0", "Host: localhost\r\n"), ("1.0", "")] {
        let answer = exchange(&rig, format!("{describe} HTTP/{version}\r\nConnection: close\r\n{host}\r\n").as_bytes());
        assert!(answer.contains(" 200 OK\r\n") && answer.contains("cn-hangzhou"), "{version} {host:?}: {answer}");
    }
}

/// This moment, as requests say it.
fn now() -> String {
    let said = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// A signed call under a name that the host goes by.
fn call_at(rig: &ApiRig, host: &str, parameters: &str, time: &str) -> Value {
    let mut pairs = read_pairs(parameters).unwrap();
    let nonce = Environment::real().new_id("nonce");
    let common = [
        ("AccessKeyId", rig.key.id.as_str()),
        ("Format", "JSON"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", &nonce),
        ("SignatureVersion", "1.0"),
        ("Timestamp", time),
    ];
    pairs.extend(common.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let signature = v1_sign(&rig.key.secret, &v1_string_to_sign("GET", &pairs));
    pairs.push(("Signature".into(), signature));
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let request = format!("GET /?{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", query.join("&"));
    let answer = exchange(rig, request.as_bytes());
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_region_that_a_call_leaves_out_is_that_of_the_host_or_the_only_one() {
    let rig = rig();
    let now = now();
    let create = "Action=CreateSecurityGroup&Version=2014-05-26&SecurityGroupName=group";
    let describe = "Action=DescribeSecurityGroups&Version=2014-05-26";
    let network = "Action=CreateVpc&Version=2016-04-28&CidrBlock=10.0.0.0/16";
    let vpc = call_at(&rig, "vpc.cn-beijing.aliyuncs.com:8773", network, &now);
    let create = format!("{create}&VpcId={}", vpc["VpcId"].as_str().unwrap());
    let group = call_at(&rig, "ECS.cn-beijing.aliyuncs.com", &create, &now)["SecurityGroupId"].clone();
    for (host, is_there) in [
        ("ecs.cn-beijing.aliyuncs.com", true),
        ("ecs-cn-beijing.aliyuncs.com", true),
        ("ecs-vpc.cn-beijing.aliyuncs.com.", true),
        ("ecs-cn-hangzhou.aliyuncs.com:80", false),
        ("ecs.cn-hangzhou.aliyuncs.com", false),
    ] {
        let found = call_at(&rig, host, describe, &now);
        let groups = found["SecurityGroups"]["SecurityGroup"].as_array().unwrap_or_else(|| panic!("{found}"));
        assert_eq!(groups.iter().any(|shown| shown["SecurityGroupId"] == group), is_there, "{host}: {found}");
    }
    let said = format!("{describe}&RegionId=cn-beijing");
    let found = call_at(&rig, "ecs.cn-hangzhou.aliyuncs.com", &said, &now);
    assert_eq!(found["SecurityGroups"]["SecurityGroup"][0]["SecurityGroupId"], group, "what is said counts: {found}");
    let nowhere = call_at(&rig, "ecs.cn-nowhere.aliyuncs.com", describe, &now);
    assert_eq!(nowhere["Code"], "InvalidRegionId.NotFound", "{nowhere}");
    for host in ["ecs.aliyuncs.com", "localhost", "127.0.0.1:8773", "ecs.cn-beijing.example.com"] {
        let missing = call_at(&rig, host, describe, &now);
        assert_eq!(missing["Code"], "MissingParameter.RegionId", "{host}: {missing}");
    }
    let settings = ApiSettings { regions: vec!["eu-central-1".into()], ..ApiSettings::default() };
    let rig = ApiRig::start(&Model::new(Quotas::default()), settings, Quotas::default()).unwrap();
    let found = call_at(&rig, "localhost", describe, &now);
    assert_eq!(found["RegionId"], "eu-central-1", "{found}");
}

#[test]
fn times_may_have_a_fraction() {
    let rig = rig();
    let now = now();
    let second = now.strip_suffix('Z').unwrap();
    let regions = "Action=DescribeRegions&Version=2014-05-26";
    for good in [".000Z", ".5Z", ".123Z", ".123456789Z"] {
        let answer = call_at(&rig, "localhost", regions, &format!("{second}{good}"));
        assert!(answer.get("Regions").is_some(), "{good}: {answer}");
    }
    for bad in [".Z", ".12", ".1234567890Z", ".12xZ", ",123Z", ".123+08:00"] {
        let answer = call_at(&rig, "localhost", regions, &format!("{second}{bad}"));
        assert_eq!(answer["Code"], "InvalidTimeStamp.Format", "{bad}: {answer}");
    }
}

#[test]
fn unsigned_requests_are_only_for_those_who_ask_for_them() {
    let settings = ApiSettings { unsigned: true, ..ApiSettings::default() };
    let rig = ApiRig::start(&Model::new(Quotas::default()), settings.clone(), Quotas::default()).unwrap();
    let mut client = rig.client().unwrap();
    let request = "GET /?Action=DescribeRegions&Version=2014-05-26&Format=JSON HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(client.exchange(request.as_bytes()).unwrap().status, 200);
    // As a page that somebody looks at would send it.
    let describe = "Action=DescribeRegions&Version=2014-05-26";
    let create = "Action=CreateVpc&Version=2016-04-28&RegionId=cn-hangzhou&CidrBlock=10.0.0.0/16";
    for (request, status) in [
        (format!("GET /?{describe} HTTP/1.1\r\nHost: rebound.example:{}\r\n\r\n", rig.address.port()), 403),
        (format!("GET /?{describe} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n"), 403),
        (format!("GET /?{create} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 403),
        (format!("POST /?{create} HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: 0\r\n\r\n"), 403),
        (format!("POST /?{create} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), 200),
    ] {
        assert_eq!(client.exchange(request.as_bytes()).unwrap().status, status, "{request}");
    }
    let wrong = AccessKey { secret: "wrong".into(), ..rig.key.clone() };
    let mut stranger = ApiClient::connect(rig.address, wrong).unwrap();
    let answer = stranger.call(Product::Ecs, "DescribeRegions", &[]).unwrap();
    assert_eq!(answer.code().as_deref(), Some("SignatureDoesNotMatch"));
    assert_eq!(rig.key.account, FIRST_ACCOUNT);
    let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    assert!(control::http::Endpoint::new(open, settings).is_err());
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[A-Z][A-Za-z0-9]{0,8}", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_parameters_or_a_refusal(text in ".*", name in "[A-Za-z.0-9]{0,12}") {
        if let Ok(parameters) = read_pairs(&text).and_then(Parameters::new) {
            let _ = (parameters.list(&name), parameters.objects(&name), parameters.object(&name));
            let _ = (parameters.integer(&name), parameters.boolean(&name), parameters.json_list(&name));
        }
    }

    #[test]
    fn lists_come_back_in_order(entries in prop::collection::btree_map(1_u32..5000, "[a-z]{1,6}", 0..40)) {
        let text: Vec<String> = entries.iter().rev().map(|(place, value)| format!("L.{place}={value}")).collect();
        let parameters = Parameters::new(read_pairs(&text.join("&")).unwrap()).unwrap();
        prop_assert_eq!(parameters.list("L").unwrap(), entries.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_written_can_be_read(tree in tree()) {
        let json = Format::Json.write("Root", &tree);
        prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), tree.clone());
        let xml = Format::Xml.write("Root", &tree);
        let mut reader = quick_xml::Reader::from_str(&xml);
        let mut depth = 0_i32;
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => break,
                Ok(quick_xml::events::Event::Start(_)) => depth += 1,
                Ok(quick_xml::events::Event::End(_)) => depth -= 1,
                Ok(_) => {}
                Err(error) => prop_assert!(false, "{error}: {xml}"),
            }
        }
        prop_assert_eq!(depth, 0);
    }

    #[test]
    fn any_authorization_is_judged(value in ".*", parts in "[ -~]{0,60}") {
        let _ = control::ecs::Authorization::read(&value);
        let _ = control::ecs::Authorization::read(&format!("ACS3-HMAC-SHA256 {parts}"));
    }
}
