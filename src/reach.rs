//! `reach`: the whole map of who may open a connection to whom.

use crate::{
    ending::{Ending, Failure},
    escape, manifests, output,
    typed::{self, ReachBy, ReachOutput},
};
use review::{
    Input, Sets, Universe,
    map::{By, Filter, Map, Options},
};
use std::io::Write as _;

pub(crate) fn run(typed: &typed::Reach) -> miette::Result<Ending> {
    let options = Options {
        by: match typed.by {
            ReachBy::Workload => By::Workload,
            ReachBy::Pod => By::Pod,
        },
        from: filter("--from", typed.from.as_deref())?,
        to: filter("--to", typed.to.as_deref())?,
        exposure: typed.exposure,
        disjoint: typed.output == ReachOutput::Matrix,
    };
    let cluster = manifests::read(&typed.manifests)?;
    let universe = Universe::of(&[Input { cluster: &cluster, policies: &cluster.policies }]);
    let sets = Sets::default();
    let reach = review::Reach::new(&universe, 0, &sets);
    let map = Map::new(&reach, &options).map_err(|problem| Failure::whole(&problem))?;
    let mut out = output::stdout();
    show(&map, typed.output, &mut out).and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(Ending::Done)
}

fn filter(option: &str, text: Option<&str>) -> Result<Option<Filter>, Failure> {
    text.map(str::parse).transpose().map_err(|problem| Failure::of(option, problem))
}

fn show(map: &Map<'_>, form: ReachOutput, out: &mut impl std::io::Write) -> std::io::Result<()> {
    match form {
        ReachOutput::Json => map.write_json(&mut escape::Json(out)),
        ReachOutput::Yaml => map.write_yaml(&mut escape::Json(out)),
        ReachOutput::Text => map.write_text(&mut escape::Lines(out)),
        ReachOutput::Csv => map.write_csv(&mut escape::Lines(out)),
        ReachOutput::Dot => map.write_dot(&mut escape::Lines(out)),
        ReachOutput::Mermaid => map.write_mermaid(&mut escape::Lines(out)),
        ReachOutput::Matrix => map.write_matrix(&mut escape::Lines(out)),
    }
}
