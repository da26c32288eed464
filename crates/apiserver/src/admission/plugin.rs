//! What an admission plugin is: its name, what it handles, and its step of each phase.

use std::future::Future;
use std::pin::Pin;

use api::object::Object;
use api::{ApiError, KindRow};

use super::attributes::Attributes;
use super::quota::Charges;
use super::subject::{Subject, View};
use super::webhooks::{Operation, Rounds};

/// The outcome of a step that waits for something.
pub type Step<'s> = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 's>>;

/// What the validating phase leaves beside its decision.
#[derive(Debug, Default)]
#[must_use]
pub struct Admitted {
    pub warnings: Vec<String>,
    pub charges: Charges,
}

type Decide = for<'s, 'a> fn(&'s Attributes<'a>, Option<&'s dyn Object>) -> Step<'s>;

/// A step of the mutating phase.
#[derive(Clone, Copy)]
pub enum Mutation {
    /// Changes the object by itself.
    Change(fn(&Attributes<'_>, &mut dyn Object) -> Result<(), ApiError>),
    /// Changes the object by what it looks up.
    Complete(for<'s, 'a> fn(&'s Attributes<'a>, &'s mut dyn Object) -> Step<'s>),
    /// Changes nothing; there is no object when one is deleted or connected to.
    Decide(Decide),
    /// Changes the object as it is shown outside.
    Call(for<'s, 'a> fn(&'s Attributes<'a>, &'s mut dyn Subject, &'s mut Rounds) -> Step<'s>),
}

/// A step of the validating phase.
#[derive(Clone, Copy)]
pub enum Validation {
    /// Judges the object by itself.
    Check(fn(&Attributes<'_>, &dyn Object) -> Result<(), ApiError>),
    /// Judges the request; there is no object when one is deleted or connected to.
    Decide(Decide),
    /// Judges the object as it is shown outside, or leaves more than a decision.
    Call(for<'s, 'a> fn(&'s Attributes<'a>, &'s dyn View, &'s mut Admitted) -> Step<'s>),
}

/// One plugin.
pub struct Plugin {
    /// As upstream names it.
    pub name: &'static str,
    /// Whether it is enabled unless a flag says otherwise.
    pub default: bool,
    /// What to say if somebody enables it although it is not built.
    pub missing: Option<&'static str>,
    operations: &'static [Operation],
    /// None: all.
    kinds: &'static [&'static KindRow],
    /// None: all; the object itself is the empty one.
    subresources: &'static [&'static str],
    mutation: Option<Mutation>,
    validation: Option<Validation>,
}

/// The object itself.
pub const ITSELF: &[&str] = &[""];
/// All kinds, or all subresources.
pub const ALL_KINDS: &[&KindRow] = &[];
pub const ALL_SUBRESOURCES: &[&str] = &[];

impl Plugin {
    /// A plugin that is enabled by default.
    pub const fn on(name: &'static str) -> Self {
        Self {
            name,
            default: true,
            missing: None,
            operations: &[],
            kinds: ALL_KINDS,
            subresources: ALL_SUBRESOURCES,
            mutation: None,
            validation: None,
        }
    }

    /// A plugin that has to be enabled by name.
    pub const fn off(name: &'static str) -> Self {
        Self { default: false, ..Self::on(name) }
    }

    pub const fn missing(self, why: &'static str) -> Self {
        Self { missing: Some(why), ..self }
    }

    pub const fn handles(
        self,
        operations: &'static [Operation],
        kinds: &'static [&'static KindRow],
        subresources: &'static [&'static str],
    ) -> Self {
        Self { operations, kinds, subresources, ..self }
    }

    pub const fn mutates(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    pub const fn validates(self, validation: Validation) -> Self {
        Self { validation: Some(validation), ..self }
    }

    pub fn is_mutating(&self) -> bool {
        self.mutation.is_some()
    }

    pub fn is_validating(&self) -> bool {
        self.validation.is_some()
    }

    /// Whether a request is its business.
    fn is_about(&self, attributes: &Attributes<'_>) -> bool {
        let row = attributes.call.row();
        self.operations.contains(&attributes.operation)
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| row == *kind))
            && (self.subresources.is_empty() || self.subresources.contains(&attributes.subresource))
    }

    /// Its step of the mutating phase, if it has one for the request.
    pub fn mutation(&self, attributes: &Attributes<'_>) -> Option<Mutation> {
        self.mutation.filter(|_| self.is_about(attributes))
    }

    /// Its step of the validating phase, if it has one for the request.
    pub fn validation(&self, attributes: &Attributes<'_>) -> Option<Validation> {
        self.validation.filter(|_| self.is_about(attributes))
    }
}

impl Mutation {
    /// Takes the step.
    ///
    /// # Errors
    /// What the plugin refuses the request with.
    pub async fn run(
        self,
        attributes: &Attributes<'_>,
        subject: &mut dyn Subject,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        match self {
            Self::Change(change) => match subject.object_mut() {
                Some(object) => change(attributes, object),
                None => Ok(()),
            },
            Self::Complete(complete) => match subject.object_mut() {
                Some(object) => complete(attributes, object).await,
                None => Ok(()),
            },
            Self::Decide(decide) => decide(attributes, subject.object()).await,
            Self::Call(call) => call(attributes, subject, rounds).await,
        }
    }
}

impl Validation {
    /// Takes the step.
    ///
    /// # Errors
    /// What the plugin refuses the request with.
    pub async fn run(
        self,
        attributes: &Attributes<'_>,
        view: &dyn View,
        admitted: &mut Admitted,
    ) -> Result<(), ApiError> {
        match self {
            Self::Check(check) => view.object().map_or(Ok(()), |object| check(attributes, object)),
            Self::Decide(decide) => decide(attributes, view.object()).await,
            Self::Call(call) => call(attributes, view, admitted).await,
        }
    }
}
