//! The corpus, a module a family of classes.

mod addresses;
mod connections;
mod fragments;
mod headers;
mod labels;
mod node;
mod rules;
mod services;

use crate::class::Class;

/// Every class.
pub(crate) fn all() -> Vec<Class> {
    [
        addresses::CLASSES,
        connections::CLASSES,
        fragments::CLASSES,
        headers::CLASSES,
        labels::CLASSES,
        node::CLASSES,
        rules::CLASSES,
        services::CLASSES,
    ]
    .concat()
}
