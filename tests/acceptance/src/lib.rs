//! Acceptance tests: whole meshes on this machine, seen from outside. Each file of `tests/` is about one promise; `testkit` has the tools.
