//! Plays a scenario until its time is over or a signal comes: `lab-play FOLDER NAME SECONDS`. For tests, which end it
//! in the middle, and for whoever looks at the lab by hand.

use lab::{Error, Lab, Options, Scenario, pod_program, stop_on_signals};
use std::{path::Path, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name, seconds] = &arguments[..] else {
        eprintln!("lab-play FOLDER NAME SECONDS");
        return ExitCode::from(2);
    };
    match play(Path::new(folder), name, Duration::from_secs(seconds.parse().unwrap_or(10))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn play(folder: &Path, name: &str, duration: Duration) -> Result<(), Error> {
    let options = Options {
        name: Some(name.to_owned()),
        pod_command: vec![pod_program()?.into()],
        stop: stop_on_signals()?,
        ..Options::default()
    };
    let scenario = Scenario::load(folder)?;
    let lab = Lab::up(&scenario, &options)?;
    println!("up: {} pods; the node is {}", lab.pods().len(), lab.node_netns().display());
    let report = lab.run(duration, &mut |cluster| println!("changed: {} pods so far", cluster.pods.len()))?;
    println!("{} calls answered, {} failed", report.total().answered, report.total().failed);
    report.failures.iter().for_each(|failure| println!("{failure}"));
    lab.down();
    Ok(())
}
