//! Costs, measured beside each other on a machine that others use, too.
//!
//! A [`Lane`] is a way of doing one kind of work. [`race`](engine::race) gives every lane a slice of a second in
//! turn, round after round, on one CPU, and compares lanes within each round: what the machine does to one, it
//! does to its neighbours. Slices in which somebody else had the CPU are thrown away; where too few are left
//! there is no figure, only the word *spoiled*.

pub mod add_del;
pub mod crowd;
pub mod engine;
pub mod lanes;
pub mod order;
pub mod roads;
pub mod rows;
mod run;
pub mod table;

pub use engine::{Lane, Outcome, Pace, race};
pub use run::main;
