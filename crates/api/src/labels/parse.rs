//! The text format of label selectors: `a=b,c!=d,e in (f,g),!h,i>3`. Grammar and errors are those
//! of `k8s.io/apimachinery/pkg/labels`, since users see them.

use std::collections::BTreeSet;

use super::{Requirement, SelectorError};
use crate::names;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Identifier,
    In,
    NotIn,
    Equals,
    NotEquals,
    Greater,
    Less,
    Not,
    Open,
    Close,
    Comma,
    End,
    Error,
}

/// Parses a selector.
pub fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    parser.requirements().map_err(SelectorError)
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// Splits the text into tokens. An invalid part becomes a token of its own, with its error.
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        let token = if is_special(first) {
            special(rest)
        } else {
            let end = rest
                .find(|c: char| is_special(c) || matches!(c, ' ' | '\t' | '\r' | '\n'))
                .unwrap_or(rest.len());
            let word = &rest[..end];
            let token = match word {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            (token, word)
        };
        tokens.push((token.0, token.1.to_owned()));
        if token.0 == Token::Error {
            tokens.push((Token::End, String::new()));
            return tokens;
        }
        rest = &rest[token.1.len()..];
    }
}

/// The longest symbol that the text begins with; every special character begins one.
fn special(text: &str) -> (Token, &str) {
    let symbols = [
        ("==", Token::Equals),
        ("!=", Token::NotEquals),
        ("=", Token::Equals),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    symbols
        .into_iter()
        .find(|(symbol, _)| text.starts_with(symbol))
        .map_or((Token::Error, text), |(symbol, token)| (token, &text[..symbol.len()]))
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// The next token where a value may be: operators are ordinary words there.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.tokens[self.at.min(self.tokens.len() - 1)];
        match token {
            Token::In | Token::NotIn => (Token::Identifier, text),
            token => (*token, text),
        }
    }

    fn next(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_owned());
        self.at += 1;
        taken
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    all.push(
                        requirement
                            .map_err(|error| format!("unable to parse requirement: {error}"))?,
                    );
                    match self.next() {
                        (Token::End, _) => return Ok(all),
                        (Token::Comma, _) => {
                            let (token, text) = self.peek();
                            if !matches!(token, Token::Identifier | Token::Not) {
                                return Err(format!(
                                    "found '{text}', expected: identifier after ','"
                                ));
                            }
                        }
                        (_, text) => {
                            return Err(format!(
                                "found '{text}', expected: ',' or 'end of string'"
                            ));
                        }
                    }
                }
                (Token::End, _) => return Ok(all),
                (_, text) => {
                    return Err(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = names::qualified_name(&key);
        if !problems.is_empty() {
            let problems = problems.join("; ");
            return Err(format!("<nil>: Invalid value: {key:?}: {problems}"));
        }
        if negated {
            return Ok(Requirement::NotExists(key));
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(Requirement::Exists(key));
        }
        let (operator, text) = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        self.at += 1;
        let values = match operator {
            Token::In | Token::NotIn => self.list()?,
            Token::Equals | Token::NotEquals | Token::Greater | Token::Less => self.value()?,
            _ => return Err(format!("found '{text}', expected: {OPERATORS}")),
        };
        requirement(key, operator, values)
    }

    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, _) => {
                let values = self.identifiers()?;
                self.next();
                Ok(values)
            }
            (Token::Close, _) => {
                self.next();
                Ok(BTreeSet::new())
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// Values up to the closing parenthesis, which is not consumed. Between two commas is the empty
    /// value.
    fn identifiers(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, value) => {
                    values.insert(value);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.next();
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, value) => Ok(BTreeSet::from([value])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

fn requirement(
    key: String,
    operator: Token,
    values: BTreeSet<String>,
) -> Result<Requirement, String> {
    let values: Vec<String> = values.into_iter().collect();
    let bound = |values: &[String]| {
        let text = values.first().map(String::as_str).unwrap_or_default();
        text.parse::<i64>().map_err(|_| {
            format!("values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer")
        })
    };
    if matches!(operator, Token::In | Token::NotIn) && values.is_empty() {
        return Err(
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                .to_owned(),
        );
    }
    let made = match operator {
        Token::Greater => Requirement::Greater(key.clone(), bound(&values)?),
        Token::Less => Requirement::Less(key.clone(), bound(&values)?),
        Token::In | Token::Equals => Requirement::In(key.clone(), values.clone()),
        _ => Requirement::NotIn(key.clone(), values.clone()),
    };
    for (index, value) in values.iter().enumerate() {
        let problems = names::label_value(value);
        if !problems.is_empty() {
            let problems = problems.join("; ");
            return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {problems}"));
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_kubernetes_words_them() {
        for (text, expected) in [
            ("a=b,", "found '', expected: identifier after ','"),
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            (
                "a)",
                "unable to parse requirement: found ')', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a==b==c", "found '==', expected: ',' or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().0, expected, "{text}");
        }
        let key = parse("a$=b").unwrap_err().0;
        assert!(
            key.starts_with(
                "unable to parse requirement: <nil>: Invalid value: \"a$\": name part must"
            ),
            "{key}"
        );
        let value = parse("a=b$").unwrap_err().0;
        assert!(
            value.starts_with(
                "unable to parse requirement: values[0][a]: Invalid value: \"b$\": a valid label"
            ),
            "{value}"
        );
    }

    #[test]
    fn the_empty_value_is_between_commas() {
        let all = parse("a in (,b,),in=notin,c=,d").unwrap();
        assert_eq!(
            all,
            [
                Requirement::In("a".into(), vec![String::new(), "b".into()]),
                Requirement::In("in".into(), vec!["notin".into()]),
                Requirement::In("c".into(), vec![String::new()]),
                Requirement::Exists("d".into()),
            ]
        );
    }
}
