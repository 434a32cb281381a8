//! One pod's process: enters its network namespace, serves, and calls when told to.
//!
//! The namespace is entered before there is any second thread, so that every socket of the process is in it. The
//! control socket is a file, and files are shared by all namespaces of the lab.

mod call;
mod connection;
mod resolver;
mod serve;
mod zone;

use crate::{
    control::{Answer, Order, PodSpec},
    process::Process,
};
use nix::sched::{CloneFlags, setns};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    rc::Rc,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::{LocalSet, spawn_local},
};

/// What a pod's process starts as a child: `exec PROGRAM ARGS…`, which dies with its parent.
const EXEC: &str = "exec";

/// The program: one argument, the pod's spec file as the lab wrote it. Runs until it is killed.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(first) = arguments.next() else {
        eprintln!("a pod of the lab: started by `podfence lab`, not by hand");
        return ExitCode::from(2);
    };
    let result = if first == EXEC { exec(arguments) } else { run(&PathBuf::from(first)) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes another program, one that dies when the pod's process does.
fn exec(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let program = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    Err(Command::new(program).args(arguments).exec())
}

/// The command that runs `program` as a child of this process.
pub(crate) fn child(program: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // A program that holds the pod as a hidden verb needs that verb again.
    let own: Vec<OsString> = std::env::args_os().collect();
    command.args(own.get(1..own.len() - 1).unwrap_or_default()).arg(EXEC).arg(program);
    Ok(command)
}

fn run(spec: &Path) -> io::Result<()> {
    let spec: PodSpec = serde_json::from_slice(&std::fs::read(spec)?)?;
    record(&spec.pids, &[])?;
    setns(File::open(&spec.netns)?, CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, live(spec))
}

/// Writes down this process and its children, so that they can be ended whatever becomes of the lab.
pub(crate) fn record(file: &Path, children: &[u32]) -> io::Result<()> {
    let children = children.iter().filter_map(|pid| Process::of(i32::try_from(*pid).ok()?));
    let all: Vec<Process> = Process::own().into_iter().chain(children).collect();
    let beside = file.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(&all)?)?;
    std::fs::rename(&beside, file)
}

async fn live(spec: PodSpec) -> io::Result<()> {
    let zone = serve::start(&spec).await?;
    let callers = Rc::new(call::Caller::new(&spec)?);
    let listener = UnixListener::bind(&spec.socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(obey(stream, Rc::clone(&callers), zone.clone()));
    }
}

async fn obey(stream: UnixStream, caller: Rc<call::Caller>, zone: Option<zone::Zone>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match serde_json::from_str(&line) {
            Ok(Order::Call(order)) => {
                let answer: Answer = caller.call(order).await;
                serde_json::to_vec(&answer)
            }
            Ok(Order::Reload) => serde_json::to_vec(&reload(zone.as_ref()).await),
            Err(error) => {
                eprintln!("not an order: {error}");
                return;
            }
        };
        let Ok(mut answer) = answer else { return };
        answer.push(b'\n');
        if write.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn reload(zone: Option<&zone::Zone>) -> Result<(), String> {
    let zone = zone.ok_or("no DNS server")?;
    zone.reload().await.map_err(|error| error.to_string())
}
