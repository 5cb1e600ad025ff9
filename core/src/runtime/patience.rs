//! Sources that answer before a filter has its time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Input, Period, Pipeline, Problem, codes};
use crate::topology::{BuiltFilter, FilterPart};

/// A source that answers, and until when.
pub(super) struct Waiting {
    id: Arc<str>,
    time: Duration,
}

/// The sources that answer once they know what became of their events.
pub(super) fn waiting(pipeline: &Pipeline) -> Vec<Waiting> {
    let sources = pipeline.sources.iter();
    let waiting = sources.filter_map(|source| {
        let time = source.plugin.answers_within(&source.settings)?;
        let id = Arc::clone(&source.id);
        Some(Waiting { id, time })
    });
    waiting.collect()
}

/// Says of filters that may take longer for an event than a source in front of them waits, which therefore never hears of those.
pub(super) fn outlasted(sources: &[Waiting], filters: &[FilterPart]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for filter in filters {
        let BuiltFilter::Async(built) = &filter.part.built else {
            continue;
        };
        let (id, time) = (&filter.part.id, built.limits().timeout);
        let above = above(&filter.inputs, filters);
        for source in sources {
            if !above.contains(&*source.id) || time < source.time {
                continue;
            }
            let (other, limit) = (&source.id, Period(source.time));
            let message = format!(
                "the filter `{id}` may take {} for an event, and the source `{other}` answers after {limit}: it never tells how such an event ended",
                Period(time)
            );
            let help = format!("give `{id}` less than {limit}, or `{other}` more time");
            let problem = Problem::new(codes::SHORT_TIMEOUT, message).warning();
            let key = format!("filters.{id}.timeout");
            problems.push(problem.at_key(&key).help(help));
        }
    }
    problems
}

/// The ids of everything whose events come to what has these inputs.
fn above<'f>(inputs: &'f [Input], filters: &'f [FilterPart]) -> HashSet<&'f str> {
    let mut found = HashSet::new();
    let mut left: Vec<&Input> = inputs.iter().collect();
    while let Some(input) = left.pop() {
        if found.insert(&*input.id) {
            let fed = filters.iter().filter(|it| it.part.id == input.id);
            left.extend(fed.flat_map(|it| &it.inputs));
        }
    }
    found
}
