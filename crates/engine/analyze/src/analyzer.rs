//! Keeps the findings of all rules up to date while the mesh changes.
//!
//! [`Analyzer::update`] takes what changed from the store, finds the units whose objects or looks
//! are among it, checks those again, and tells whose problems are others now. One writer, no locks,
//! no clock; it holds no more than a note for each look of each unit that there is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ingest::{Key, Problem};
use mesh_model::Snapshot;
use mesh_model::object::Text;

use crate::cx::Cx;
use crate::cx::Look;
use crate::rule::{Rule, Units};
use crate::rules::RULES;
use crate::selections::Selections;
use ingest::Store;

/// On an object: codes, separated by commas, that analysis does not report for it; `*` for all
/// (Istio's documentation of `istioctl analyze`).
const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

/// What is checked as a whole: an object, or a claim, by the rule of this place in [`RULES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Unit {
    Object(usize, Key),
    Claim(usize, Text),
}

impl Unit {
    fn rule(&self) -> usize {
        match self {
            Self::Object(rule, _) | Self::Claim(rule, _) => *rule,
        }
    }
}

/// A unit's last check.
#[derive(Default)]
struct Checked {
    looks: HashSet<Look>,
    /// Objects for which it found something.
    spoken_of: BTreeSet<Key>,
}

/// What one check looked at and found.
struct Seen {
    looks: HashSet<Look>,
    found: Vec<(Key, Problem)>,
}

/// The snapshot of the store's last build, and whose problems are others than before it.
pub struct Updated {
    pub snapshot: Arc<Snapshot>,
    pub objects: BTreeSet<Key>,
}

/// Findings about objects seen together, as of the last update.
#[derive(Default)]
pub struct Analyzer {
    snapshot: Option<Arc<Snapshot>>,
    selections: Selections,
    units: HashMap<Unit, Checked>,
    lookers: HashMap<Look, HashSet<Unit>>,
    /// Who claims what.
    claims: HashMap<(usize, Text), BTreeSet<Key>>,
    claimed_by: HashMap<Key, Vec<(usize, Text)>>,
    found: BTreeMap<Key, BTreeMap<Unit, Vec<Problem>>>,
    /// From `found`: each object's in order, each once, without those that its author does not want
    /// to hear.
    problems: BTreeMap<Key, Vec<Problem>>,
    /// How many units were checked, ever.
    checks: u64,
}

impl Analyzer {
    /// Builds the store's snapshot and brings the findings up to it.
    pub fn update(&mut self, store: &mut Store) -> Updated {
        let after = store.build();
        let mut changes = store.take_changes();
        let mut touched = std::mem::take(&mut changes.objects);
        let before = match self.snapshot.take().filter(|_| !changes.everything) {
            Some(before) => before,
            None => {
                let gone = std::mem::take(self);
                self.checks = gone.checks;
                touched.extend(gone.problems.into_keys());
                touched.extend(store.objects().map(|(key, _)| key.clone()));
                after.clone()
            }
        };
        let mut due = BTreeSet::new();
        for key in &touched {
            self.reclaim(store, key, &mut due);
            self.looked_at(&Look::Object(key.clone()), &mut due);
            self.looked_at(&Look::Kind(key.kind), &mut due);
            let place = Look::Namespace(key.kind, key.namespace.clone());
            self.looked_at(&place, &mut due);
        }
        if !changes.hosts.is_empty() {
            self.looked_at(&Look::Hosts, &mut due);
        }
        for host in changes.hosts {
            self.looked_at(&Look::Host(host), &mut due);
        }
        for service in changes.endpoints {
            self.looked_at(&Look::Endpoints(service), &mut due);
        }
        self.workloads_changed(&before, &after, &changes.workloads, &mut due);
        let mut objects = touched;
        let mut spoken_of = objects.clone();
        for unit in due {
            self.check(unit, store, &after, &mut spoken_of);
        }
        for key in spoken_of {
            if self.collect(store, &key) {
                objects.insert(key);
            }
        }
        self.snapshot = Some(after.clone());
        Updated {
            snapshot: after,
            objects,
        }
    }

    /// All problems of all objects: of each by itself, then of objects seen together.
    pub fn problems<'a>(
        &'a self,
        store: &'a Store,
    ) -> impl Iterator<Item = (&'a Key, &'a Problem)> {
        let keys = store.objects().map(|(key, _)| key);
        keys.flat_map(move |key| {
            self.problems_of(store, key)
                .map(move |problem| (key, problem))
        })
    }

    /// The problems of one object, as in [`Analyzer::problems`].
    pub fn problems_of<'a>(
        &'a self,
        store: &'a Store,
        key: &Key,
    ) -> impl Iterator<Item = &'a Problem> {
        let together = self.problems.get(key).into_iter().flatten();
        store.problems_of(key).iter().chain(together)
    }

    /// How many objects have a finding of this code.
    pub fn count(&self, code: &str) -> usize {
        let has = |list: &&Vec<Problem>| list.iter().any(|problem| problem.code == code);
        self.problems.values().filter(has).count()
    }

    /// How many units were checked so far: what updates have cost.
    pub fn checks(&self) -> u64 {
        self.checks
    }

    fn looked_at(&self, look: &Look, due: &mut BTreeSet<Unit>) {
        due.extend(self.lookers.get(look).into_iter().flatten().cloned());
    }

    fn workloads_changed(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        workloads: &BTreeSet<(Text, Text)>,
        due: &mut BTreeSet<Unit>,
    ) {
        if workloads.is_empty() {
            return;
        }
        for selection in self.selections.update(before, after, workloads) {
            self.looked_at(&Look::Selection(selection), due);
        }
        let namespaces: BTreeSet<&Text> =
            workloads.iter().map(|(namespace, _)| namespace).collect();
        for namespace in namespaces {
            self.looked_at(&Look::Workloads(namespace.clone()), due);
        }
        if before.workloads.is_empty() != after.workloads.is_empty() {
            self.looked_at(&Look::AnyWorkload, due);
        }
    }

    /// The units of an object's own, and those of what it claimed and claims.
    fn reclaim(&mut self, store: &Store, key: &Key, due: &mut BTreeSet<Unit>) {
        for claim in self.claimed_by.remove(key).unwrap_or_default() {
            due.insert(Unit::Claim(claim.0, claim.1.clone()));
            if let Some(holders) = self.claims.get_mut(&claim) {
                holders.remove(key);
                if holders.is_empty() {
                    self.claims.remove(&claim);
                }
            }
        }
        let rules = RULES.iter().enumerate();
        for (index, rule) in rules.filter(|(_, rule)| rule.units.kinds().contains(&key.kind)) {
            match (&rule.units, store.in_force(key)) {
                (Units::Each { .. }, _) => drop(due.insert(Unit::Object(index, key.clone()))),
                (Units::Claims { claims, .. }, Some(domain)) => {
                    for claim in claims(key, domain) {
                        let claim = (index, Text::from(claim));
                        due.insert(Unit::Claim(index, claim.1.clone()));
                        let holders = self.claims.entry(claim.clone()).or_default();
                        if holders.insert(key.clone()) {
                            self.claimed_by.entry(key.clone()).or_default().push(claim);
                        }
                    }
                }
                (Units::Claims { .. }, None) => {}
            }
        }
    }

    fn check(
        &mut self,
        unit: Unit,
        store: &Store,
        snapshot: &Snapshot,
        spoken_of: &mut BTreeSet<Key>,
    ) {
        let checked = self.run(&unit, store, snapshot);
        let old = self.units.remove(&unit).unwrap_or_default();
        for key in &old.spoken_of {
            if let Some(by_unit) = self.found.get_mut(key) {
                by_unit.remove(&unit);
                if by_unit.is_empty() {
                    self.found.remove(key);
                }
            }
        }
        spoken_of.extend(old.spoken_of);
        let mut new = Checked::default();
        if let Some(Seen { looks, found }) = checked {
            for look in &looks {
                let units = self.lookers.entry(look.clone()).or_default();
                units.insert(unit.clone());
            }
            for (key, problem) in found {
                let by_unit = self.found.entry(key.clone()).or_default();
                by_unit.entry(unit.clone()).or_default().push(problem);
                new.spoken_of.insert(key);
            }
            new.looks = looks;
        }
        for look in old.looks.difference(&new.looks) {
            self.look_away(look, &unit);
        }
        spoken_of.extend(new.spoken_of.iter().cloned());
        if !new.looks.is_empty() || !new.spoken_of.is_empty() {
            self.units.insert(unit, new);
        }
    }

    fn look_away(&mut self, look: &Look, unit: &Unit) {
        let Some(units) = self.lookers.get_mut(look) else {
            return;
        };
        units.remove(unit);
        if units.is_empty() {
            self.lookers.remove(look);
            if let Look::Selection(selection) = look {
                self.selections.forget(selection);
            }
        }
    }

    /// `None`: there is nothing to check any more.
    fn run(&mut self, unit: &Unit, store: &Store, snapshot: &Snapshot) -> Option<Seen> {
        let rule: &'static Rule = RULES.get(unit.rule())?;
        let mut cx = Cx::new(rule, store, snapshot, &mut self.selections);
        match (unit, &rule.units) {
            (Unit::Object(_, key), Units::Each { check, .. }) => {
                check(&mut cx, key, store.in_force(key)?);
            }
            (Unit::Claim(index, claim), Units::Claims { check, .. }) => {
                let holders = self.claims.get(&(*index, claim.clone()))?;
                let holders: Vec<_> = holders
                    .iter()
                    .filter_map(|key| Some((key, store.in_force(key)?)))
                    .collect();
                if holders.len() < 2 {
                    return None;
                }
                check(&mut cx, claim, &holders);
            }
            _ => return None,
        }
        self.checks += 1;
        Some(Seen {
            looks: cx.looks,
            found: cx.found,
        })
    }

    /// An object's problems from its findings; are they others than before?
    fn collect(&mut self, store: &Store, key: &Key) -> bool {
        let found = self.found.get(key).into_iter().flat_map(BTreeMap::values);
        let mut problems: Vec<Problem> = found.flatten().cloned().collect();
        let suppressed = store.object(key).and_then(|object| {
            object
                .pointer("/metadata/annotations")?
                .get(SUPPRESS)?
                .as_str()
        });
        if let Some(codes) = suppressed {
            let is_meant = |code| {
                codes
                    .split(',')
                    .any(|c| c.trim() == code || c.trim() == "*")
            };
            problems.retain(|problem| !is_meant(problem.code));
        }
        problems.sort();
        problems.dedup();
        let before = match problems.is_empty() {
            true => self.problems.remove(key),
            false => self.problems.insert(key.clone(), problems),
        };
        before.as_ref() != self.problems.get(key)
    }
}
