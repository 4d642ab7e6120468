//! The gateway's own binary as a child process: started from YAML, read by its log, ended by SIGTERM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Pipe, Process};

/// What its log says once every listener is bound.
const READY: &str = "ready: listening on";
/// The name of its config file, unless a test says otherwise.
const CONFIG: &str = "gateway.yaml";

/// A running gateway. Dropping it ends it.
pub struct Gateway {
    process: Process,
    folder: TempDir,
    config: PathBuf,
}

impl Gateway {
    /// Starts the gateway and returns once it listens. Panics with its output where it does not.
    pub fn start(yaml: &str) -> Self {
        Self::spawn(yaml).ready()
    }

    /// The same with another binary that takes the same arguments.
    pub fn start_by(program: &Path, yaml: &str) -> Self {
        let folder = folder_with(yaml);
        let config = folder.path().join(CONFIG);
        Self::spawn_by(program, folder, config, &[]).ready()
    }

    /// Ends it, and starts it anew from its config file as that is now.
    pub fn restart(self) -> Self {
        self.stop();
        Self::spawn_from(self.folder, self.config, &[]).ready()
    }

    /// The same with more arguments than the file.
    pub fn start_with(yaml: &str, arguments: &[&str]) -> Self {
        let folder = folder_with(yaml);
        Self::start_in(folder, CONFIG, arguments)
    }

    /// Starts it from what is made already: the file or folder of this name in the folder, with these arguments more.
    pub fn start_in(folder: TempDir, config: &str, arguments: &[&str]) -> Self {
        let config = folder.path().join(config);
        Self::spawn_from(folder, config, arguments).ready()
    }

    /// Puts another file in the place of the config file, all at once.
    pub fn replace(&self, yaml: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, yaml).unwrap();
        fs::rename(new, self.config()).unwrap();
    }

    /// Replaces the config file, sends SIGHUP, and gives what the log says of that.
    pub fn reload(&self, yaml: &str) -> String {
        self.replace(yaml);
        self.hang_up()
    }

    /// Sends SIGHUP, and gives what the log says of that.
    pub fn hang_up(&self) -> String {
        let before = self.reloads().len();
        self.signal(libc::SIGHUP);
        let mut seen = 0;
        self.process.find("a word on the reload", |_, line| {
            let told = of_reload(line)?;
            seen += 1;
            (seen > before).then_some(told)
        })
    }

    /// What the log says of each reload so far.
    pub fn reloads(&self) -> Vec<String> {
        self.process.lines(Pipe::Err).iter().filter_map(|line| of_reload(line)).collect()
    }

    /// What came of the first reload by `trigger` after so many of them, come or still to come: `applied: …`, say.
    pub fn reload_by(&self, trigger: &str, after: usize) -> String {
        let mut seen = 0;
        self.process.find(&format!("reload by {trigger} after {after}"), |_, line| {
            let told = of_reload_by(line, trigger)?;
            seen += 1;
            (seen > after).then_some(told)
        })
    }

    /// How many reloads by `trigger` there were so far.
    pub fn reloads_by(&self, trigger: &str) -> usize {
        self.process.count(|_, line| of_reload_by(line, trigger).is_some())
    }

    /// Starts the gateway where it is expected to end by itself; gives its exit status and standard error.
    pub fn run_to_exit(yaml: &str) -> (ExitStatus, String) {
        let gateway = Self::spawn(yaml);
        let status =
            gateway.process.wait(crate::PATIENCE).expect("the gateway goes on where it should have ended");
        (status, gateway.process.lines(Pipe::Err).join("\n"))
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The config file, for tests that change it.
    pub fn config(&self) -> PathBuf {
        self.config.clone()
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The first access-log line that `wanted` says yes to, come or still to come.
    pub fn log_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.process.find("such access-log line", |_, line| access_line(line).filter(&wanted))
    }

    /// The access-log line of the request to this path.
    pub fn log_of(&self, path: &str) -> Value {
        self.log_line(|line| line["path"] == path)
    }

    /// The first access-log line of a connection, not of a request, that `wanted` says yes to, come or still to come.
    pub fn connection_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.process.find("such an access-log line of a connection", |_, line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let is_connection = line.get("listener").is_some() && line.get("request_id").is_none();
            (is_connection && wanted(&line)).then_some(line)
        })
    }

    /// The access-log lines so far. A line may be written after its response: wait for the last one with `log_line`.
    pub fn log(&self) -> Vec<Value> {
        self.process.lines(Pipe::Out).iter().filter_map(|line| access_line(line)).collect()
    }

    /// Waits for a line with this text on either output.
    pub fn wait_for(&self, text: &str) {
        self.process.wait_for(text);
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.process.lines(Pipe::Err).join("\n")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        self.process.signal(signal);
    }

    /// Whether it is still there after so long; it is watched, so one that ends is noticed at once.
    pub fn stays_for(&self, time: Duration) -> bool {
        self.process.wait(time).is_none()
    }

    /// Waits for the end.
    pub fn wait(&self) -> ExitStatus {
        self.process.wait(crate::PATIENCE).expect("the gateway goes on where it should have ended")
    }

    /// SIGTERM, then the exit status.
    pub fn stop(&self) -> ExitStatus {
        self.process.stop()
    }

    fn spawn(yaml: &str) -> Self {
        let folder = folder_with(yaml);
        let config = folder.path().join(CONFIG);
        Self::spawn_from(folder, config, &[])
    }

    fn spawn_from(folder: TempDir, config: PathBuf, arguments: &[&str]) -> Self {
        Self::spawn_by(&binary(), folder, config, arguments)
    }

    fn spawn_by(program: &Path, folder: TempDir, config: PathBuf, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["run", "-c"]).arg(&config).args(arguments);
        command.env("RUST_LOG", "info").env_remove("RUST_BACKTRACE");
        Self { process: Process::spawn("vestibule", &mut command), folder, config }
    }

    fn ready(self) -> Self {
        let is_ready = |pipe, line: &str| (pipe == Pipe::Err && line.contains(READY)).then_some(());
        self.process.find("ready line", is_ready);
        self
    }
}

/// Where the binary of this build is: beside the folder of the test executables.
pub fn binary() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let profile = executable.ancestors().find(|folder| folder.join("deps").is_dir());
    let binary = profile.unwrap_or(Path::new(".")).join("vestibule");
    assert!(
        binary.is_file(),
        "no gateway at {}: run `cargo build` with the tests' profile first",
        binary.display()
    );
    binary
}

fn folder_with(yaml: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG), yaml).unwrap();
    folder
}

/// What follows `reload by ` in the first line on a reload.
fn of_reload(line: &str) -> Option<String> {
    line.split_once("] reload by ").map(|(_, told)| told.to_owned())
}

fn of_reload_by(line: &str, trigger: &str) -> Option<String> {
    of_reload(line)?.strip_prefix(trigger)?.strip_prefix(": ").map(str::to_owned)
}

fn access_line(line: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    // Of a request, and of what passes at layer 4.
    value.get("bytes_in").is_some().then_some(value)
}
