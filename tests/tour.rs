//! The tours of README.md and docs/tour.md, pasted into an interactive shell as they stand there: what the pages show is what
//! is printed.

#![allow(clippy::unwrap_used)] // A test that cannot prepare its world has failed.

use harness::netns::{PATIENCE, can_run, eventually, program};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PROMPT: &str = "[the shell waits] ";

/// What is typed, and the lines that the page shows below it.
#[derive(Debug, PartialEq)]
struct Typed {
    command: String,
    shown: Vec<String>,
}

/// The fenced blocks of the tour.
fn blocks(page: &str) -> Vec<Vec<Typed>> {
    let tour = page
        .split("\n## ")
        .find(|part| part.starts_with("A five-minute tour") || part.starts_with("The tour"))
        .expect("the page has a tour");
    let fenced = tour.split("\n```").skip(1).step_by(2);
    let block = |text: &str| {
        let mut typed: Vec<Typed> = Vec::new();
        for line in text.lines().skip(1) {
            match (line.strip_prefix("# "), typed.last_mut()) {
                (Some(command), _) => typed.push(Typed { command: command.into(), shown: Vec::new() }),
                (None, Some(last)) if !line.is_empty() => last.shown.push(line.into()),
                _ => {}
            }
        }
        typed
    };
    fenced.map(block).collect()
}

/// A line without what differs from run to run: numbers, units of time, widths of columns.
fn form(line: &str) -> Vec<String> {
    let mut form = String::new();
    for letter in line.chars() {
        let is_number = letter.is_ascii_digit() || (letter == '.' && form.ends_with('0'));
        match (is_number, form.ends_with('0')) {
            (true, true) => {}
            (true, false) => form.push('0'),
            (false, _) => form.push(letter),
        }
    }
    let word = |word: &str| match word.trim_end_matches(',') {
        "ns" | "µs" | "ms" | "s" => "s".to_owned(),
        // A worker without a core of its own.
        "-" => "0".to_owned(),
        other => other.to_owned(),
    };
    let words: Vec<String> = form.split_whitespace().map(word).collect();
    // What was on its way when the rule went, if anything was.
    let is_of_the_moment = |place: usize| {
        [place, place.wrapping_sub(1)].iter().any(|&at| words.get(at).is_some_and(|word| word == "session-revoked"))
    };
    words.iter().enumerate().filter(|(place, _)| !is_of_the_moment(*place)).map(|(_, word)| word.clone()).collect()
}

/// The first line of the page that was not printed, in whatever order.
fn missing<'a>(typed: &'a Typed, printed: &str) -> Option<&'a String> {
    let printed: Vec<_> = printed.lines().map(form).collect();
    typed.shown.iter().find(|line| !printed.contains(&form(line)))
}

/// Whether it changes nothing, and may be said again until what was begun before has come so far.
fn is_question(command: &str) -> bool {
    ["sluice flow list", "sluice stats", "sluice explain", "sluice workers show", "sluice eni list"]
        .iter()
        .any(|start| command.starts_with(start))
        || command.contains("-- ping ")
}

/// An interactive shell at a terminal, and a Sluice that was started as the page says, both in network, mount and process
/// namespaces of their own: with them ends all that the tour made.
struct Shell {
    process: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<String>>,
    read: usize,
}

impl Shell {
    fn start(folder: &Path, first: &str) -> Self {
        // Folders of the system, as the tour names none. The outer shell stays, for it is the one to reap what jobs leave.
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p /var/lib && mount -t tmpfs none /var/lib && ip link set lo up || exit\n\
             {first} > {0}/up.log 2>&1 < /dev/null &\n\
             script --quiet --return --command 'bash --rcfile {0}/rc --noediting -i' /dev/null; exit",
            folder.display()
        );
        std::fs::write(folder.join("rc"), format!("PS1='{PROMPT}'; stty -echo\n")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", program().parent().unwrap().display());
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", &script]);
        command.env("PATH", path).env("TERM", "dumb").env("LC_ALL", "C.UTF-8");
        command.env_remove("SLUICE_RUN_DIR").env_remove("SLUICE_DATA_DIR").env_remove("PROMPT_COMMAND");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keyboard, mut output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let screen = Arc::new(Mutex::new(String::new()));
        thread::spawn({
            let screen = Arc::clone(&screen);
            move || {
                let mut bytes = Vec::new();
                let mut some = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut some) {
                    bytes.extend_from_slice(&some[..count]);
                    *screen.lock().unwrap() = String::from_utf8_lossy(&bytes).replace('\r', "");
                }
            }
        });
        let mut shell = Self { process, keyboard, screen, read: 0 };
        shell.wait_for_prompts(1);
        shell
    }

    /// What was printed before each of the next prompts.
    fn wait_for_prompts(&mut self, count: usize) -> Vec<String> {
        let mut printed = Vec::new();
        let started = Instant::now();
        while printed.len() <= count {
            let screen = self.screen.lock().unwrap().clone();
            assert!(started.elapsed() < PATIENCE, "the shell does not come back {count} times:\n{screen}");
            printed = screen[self.read..].split(PROMPT).map(str::to_owned).collect();
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!printed.iter().any(|text| text.contains("Stopped")), "a job reads from the terminal: {printed:?}");
        printed.truncate(count);
        self.read += printed.iter().map(|text| text.len() + PROMPT.len()).sum::<usize>();
        printed
    }

    /// Pastes lines at once, and tells what was printed below each.
    fn paste(&mut self, lines: &[&str]) -> Vec<String> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.keyboard.write_all(text.as_bytes()).unwrap();
        self.wait_for_prompts(lines.len())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_tour_of_the_readme_prints_what_it_shows() {
    run_tour("README.md", 15);
}

#[test]
fn the_long_tour_prints_what_it_shows() {
    run_tour("docs/tour.md", 25);
}

/// Runs the tour of a page, which has at least so many commands.
fn run_tour(page: &str, commands_min: usize) {
    if !can_run(&[]) {
        return;
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let mut blocks = blocks(&page).into_iter();
    let first = blocks.next().unwrap().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(folder.path(), &first.command);
    let log = || std::fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
    eventually("sluice is up as the page says", || missing(&first, &log()).is_none());
    let mut count = 0;
    for block in blocks {
        let lines: Vec<&str> = block.iter().map(|typed| typed.command.as_str()).collect();
        let printed = shell.paste(&lines);
        for (typed, mut printed) in block.iter().zip(printed) {
            let command = typed.command.as_str();
            assert!(!printed.contains("sluice: ") || !typed.shown.is_empty(), "{command}: {printed}");
            if missing(typed, &printed).is_some() && is_question(command) {
                let mut again = || {
                    printed = shell.paste(&[command]).remove(0);
                    missing(typed, &printed).is_none()
                };
                let mut tries = 0;
                while !again() && tries < 20 {
                    tries += 1;
                    thread::sleep(Duration::from_millis(300));
                }
            }
            let missing = missing(typed, &printed);
            assert!(
                missing.is_none(),
                "{command}\nthe page shows\n{}\nand this was printed\n{printed}",
                missing.unwrap()
            );
            count += 1;
        }
    }
    assert!(count >= commands_min, "the tour is somewhere else by now: {count} commands");
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "# x\n\n## A five-minute tour by hand\n\n```\n# one\nshown 1.5 ms, x\n\n# two &\n```\nwords\n```\n# three\n```\n\n## On\n```\n# four\n```\n";
    let typed = |command: &str, shown: &[&str]| Typed {
        command: command.into(),
        shown: shown.iter().map(ToString::to_string).collect(),
    };
    let blocks = blocks(page);
    assert_eq!(blocks, [vec![typed("one", &["shown 1.5 ms, x"]), typed("two &", &[])], vec![typed("three", &[])]]);
    assert_eq!(missing(&blocks[0][0], "a\nshown   23 µs, x\n"), None);
    assert!(missing(&blocks[0][0], "shown 23 s, y\n").is_some());
    assert_eq!(form("10.0.1.20:55288  3.4 of 30 s  eth0"), form("10.0.1.7:1  10 of 9 s eth0"));
}
