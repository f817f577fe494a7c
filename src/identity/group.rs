//! A group that people may be in.

use serde::{Deserialize, Serialize};

use crate::protocol::problem::Problem;

/// What is known of a group itself; who is in it is known of each person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The longest name, in bytes.
const LONGEST_NAME: usize = 200;
const LONGEST_DESCRIPTION: usize = 500;

/// What a name is, where one is not.
pub const NAME_RULE: &str = "a group's name is a text of one line, at most 200 bytes";

/// Can a group be called so?
pub fn is_name(name: &str) -> bool {
    is_line(name, LONGEST_NAME)
}

impl Group {
    /// Everything that is wrong with it, field by field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            problems.push(Problem::new("name", NAME_RULE));
        }
        if let Some(text) = &self.description
            && !is_line(text, LONGEST_DESCRIPTION)
        {
            let reason = format!("is a text of one line, at most {LONGEST_DESCRIPTION} bytes");
            problems.push(Problem::new("description", reason));
        }
        problems
    }
}

fn is_line(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
}
