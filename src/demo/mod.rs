//! `demo`: the whole story on this machine, which judges itself.
//!
//! What must be seen comes from the scenario's traffic.yaml alone; each step is a value of what was promised and what
//! was seen.

mod capture;
mod denials;
mod expected;
mod live;
mod step;

use crate::{
    ending::{Ending, Failure},
    files, laboratory, output, scenarios, typed,
    watch::Watch,
};
use lab::{Lab, Options, Scenario};
use miette::Result;
use std::path::PathBuf;
use step::{Judgement, Story};

/// Where a story keeps its log and policies.
pub(crate) struct Place {
    root: PathBuf,
    /// Removed with this value; `None` where the user keeps it.
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(keep: Option<PathBuf>) -> std::result::Result<Self, Failure> {
        if let Some(root) = keep {
            let taken = std::fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some());
            if taken {
                return Err(Failure::new(format!("{} is not empty", root.display()), "keep the demo in a new folder"));
            }
            files::make_folder(&root)?;
            return Ok(Self { root, temporary: None });
        }
        let temporary = tempfile::Builder::new().prefix("podfence-demo-").tempdir();
        let temporary = temporary.map_err(|why| {
            Failure::of("cannot make a temporary folder", why).hint("name one in TMPDIR, or with --keep")
        })?;
        Ok(Self { root: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    fn generated(&self) -> PathBuf {
        self.root.join("generated")
    }

    fn cluster(&self) -> PathBuf {
        self.root.join("cluster.yaml")
    }
}

pub(crate) fn run(typed: &typed::Demo) -> Result<Ending> {
    let scenario = scenarios::find(typed.scenario.as_deref())?;
    let place = Place::new(typed.keep.clone())?;
    let mut story = Story::default();
    let say = |text: String| story_line(&text);
    say(format!("The story of {}, told in {}", scenario.name, place.root.display()))?;
    match stage(typed, &scenario)? {
        Stage::Whole(lab) => whole(&mut story, lab, &place)?,
        Stage::Capture(why) => capture::tell(&mut story, &scenario, &place, &why)?,
    }
    let judgement = story.end().map_err(output::failed)?;
    match &place.temporary {
        Some(_) => say("its log and policies are removed now; --keep DIR keeps them".to_owned())?,
        None => say(format!("its log and policies are in {}", place.root.display()))?,
    }
    Ok(match judgement {
        Judgement::AsPromised => Ending::Done,
        Judgement::Differs => Ending::Reported,
    })
}

fn story_line(text: &str) -> std::result::Result<(), Failure> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", crate::escape::printable(text)).map_err(output::failed)
}

/// How much of the story this machine and user can tell.
enum Stage {
    Whole(Box<Lab>),
    /// Only what a capture tells, and why.
    Capture(String),
}

fn stage(typed: &typed::Demo, scenario: &Scenario) -> std::result::Result<Stage, Failure> {
    if typed.capture_only {
        return Ok(Stage::Capture("--capture-only was given".to_owned()));
    }
    let unable = |why: lab::Error| Stage::Capture(chain(&why));
    match lab::permitted() {
        Err(why) if !is_required() => return Ok(unable(why)),
        permitted => permitted.map_err(laboratory::failed)?,
    }
    let stop = lab::stop_on_signals().map_err(laboratory::failed)?;
    // One name for every story: what a killed one left is removed by the next.
    let options = Options { name: Some("demo".to_owned()), stop, ..Options::default() };
    let _busy = output::busy("brings up the lab");
    match Lab::up(scenario, &options) {
        Ok(lab) => Ok(Stage::Whole(Box::new(lab))),
        Err(why) if !is_required() && lacks_a_right(&why) => Ok(unable(why)),
        Err(why) => Err(laboratory::failed(why)),
    }
}

/// Whether the caller insists on the kernel's half: then lacking a right is an error, not half a story.
fn is_required() -> bool {
    let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default();
    required.split(',').any(|what| what == "kernel")
}

/// Whether the system refused because of who asks. Anything else that fails is no reason to tell only half.
fn lacks_a_right(why: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(why);
    while let Some(why) = error {
        let refused = why.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let said = why.to_string();
        if refused == Some(std::io::ErrorKind::PermissionDenied)
            || ["Operation not permitted", "Permission denied"].iter().any(|words| said.contains(words))
        {
            return true;
        }
        error = why.source();
    }
    false
}

/// The whole story; the lab is gone after it, whatever happened.
fn whole(story: &mut Story, lab: Box<Lab>, place: &Place) -> std::result::Result<(), Failure> {
    let scenario = lab.scenario().clone();
    let name = lab.name().to_owned();
    let unable = match Watch::start(&lab, &place.log()) {
        Ok(watch) => {
            live::tell(story, &lab, watch, place)?;
            None
        }
        Err(agent::Error::Datapath(why)) if !is_required() && lacks_a_right(&why) => Some(chain(&why)),
        Err(why) => return Err(Failure::of("the node cannot be watched", why)),
    };
    lab.down();
    match unable {
        None => story.tell(live::nothing_left(&name)).map_err(output::failed),
        Some(why) => capture::tell(story, &scenario, place, &why),
    }
}

/// An error with everything behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
