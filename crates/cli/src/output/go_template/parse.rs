//! Parses a template into nodes.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::output::go_template::{Node, Operand, Pipeline, functions};

/// # Errors
/// Go's message, where that is short.
pub fn parse(text: &str) -> anyhow::Result<Vec<Node>> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter() };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some(word) => bail!("unexpected {{{{{word}}}}}"),
    }
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    /// `.a.b`, also after a closing parenthesis or a variable.
    Path(Vec<String>),
    Variable(String),
    Sign(char),
    Assign,
    Declare,
}

/// Cuts a template into text and actions; `{{-` and `-}}` trim white space.
fn pieces(text: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let open = rest.find("{{");
        let mut before = &rest[..open.unwrap_or(rest.len())];
        if trim {
            before = before.trim_start();
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        let mut inside = &rest[open + 2..];
        if let Some(after) = inside.strip_prefix("- ") {
            inside = after;
            before = before.trim_end();
        }
        pieces.push(Piece::Text(before.to_owned()));
        let close = close(inside)?;
        let mut action = &inside[..close];
        rest = &inside[close + 2..];
        trim = action.ends_with(" -");
        if trim {
            action = &action[..action.len() - 2];
        }
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
}

/// Where the action ends: `}}` outside quotes.
fn close(text: &str) -> anyhow::Result<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some('"') if character == '\\' => escaped = true,
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '`') => quote = Some(character),
            None if text[index..].starts_with("}}") => return Ok(index),
            None => {}
        }
    }
    bail!("unclosed action")
}

fn tokens(text: &str) -> anyhow::Result<Vec<Token>> {
    let name =
        |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ' ' | '\t' | '\n' | '\r' => first.len_utf8(),
            '"' | '`' => {
                let end = end_of_text(rest, first)?;
                tokens.push(Token::Text(if first == '"' {
                    serde_json::from_str(&rest[..end]).context("bad string")?
                } else {
                    rest[1..end - 1].to_owned()
                }));
                end
            }
            '(' | ')' | '|' | ',' => {
                tokens.push(Token::Sign(first));
                1
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Declare);
                2
            }
            '=' => {
                tokens.push(Token::Assign);
                1
            }
            '$' => {
                let length = 1 + name(&rest[1..]);
                tokens.push(Token::Variable(rest[..length].to_owned()));
                length
            }
            '.' => {
                let mut path = Vec::new();
                let mut length = 0;
                while rest[length..].starts_with('.') {
                    let size = name(&rest[length + 1..]);
                    if size > 0 {
                        path.push(rest[length + 1..length + 1 + size].to_owned());
                    }
                    length += 1 + size;
                }
                tokens.push(Token::Path(path));
                length
            }
            _ if first.is_alphanumeric() || matches!(first, '-' | '+' | '_') => {
                let number = first.is_ascii_digit() || matches!(first, '-' | '+');
                let part =
                    |c: char| c.is_alphanumeric() || c == '_' || (number && ".-+".contains(c));
                let length = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
            other => bail!("unexpected {other:?} in command"),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn end_of_text(text: &str, quote: char) -> anyhow::Result<usize> {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' && quote == '"' {
            escaped = true;
        } else if character == quote {
            return Ok(index + 1);
        }
    }
    bail!("unterminated quoted string")
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
}

/// The nodes of a block, and the keyword that ended it.
type Block = (Vec<Node>, Option<String>);

impl Parser {
    fn nodes(&mut self) -> anyhow::Result<Block> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                None => bail!("missing value for command"),
                _ => "",
            };
            match word {
                "end" => return Ok((nodes, Some("end".to_owned()))),
                "else" => {
                    if tokens.get(1) == Some(&Token::Word("if".to_owned())) {
                        // What follows is the else's only node, and shares its end.
                        nodes.push(self.conditional(&tokens[1..])?);
                        return Ok((nodes, Some("else if".to_owned())));
                    }
                    return Ok((nodes, Some("else".to_owned())));
                }
                "if" | "with" | "range" => nodes.push(self.conditional(&tokens)?),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => bail!("{word} is not supported"),
                _ => nodes.push(action(&tokens)?),
            }
        }
        Ok((nodes, None))
    }

    fn conditional(&mut self, tokens: &[Token]) -> anyhow::Result<Node> {
        let Some(Token::Word(word)) = tokens.first() else {
            bail!("missing word");
        };
        let (names, pipeline) = declared(&tokens[1..])?;
        let (mut then, end) = self.nodes()?;
        let otherwise = match end.as_deref() {
            Some("end") => Vec::new(),
            Some("else if") => then.pop().into_iter().collect(),
            Some("else") => {
                let (otherwise, end) = self.nodes()?;
                if end.as_deref() != Some("end") {
                    bail!("expected end; found {}", end.unwrap_or("EOF".to_owned()));
                }
                otherwise
            }
            _ => bail!("unexpected EOF"),
        };
        Ok(match word.as_str() {
            "if" => Node::If(pipeline, then, otherwise),
            "with" => Node::With(names.into_iter().next(), pipeline, then, otherwise),
            _ => Node::Range(names, pipeline, then, otherwise),
        })
    }
}

fn action(tokens: &[Token]) -> anyhow::Result<Node> {
    if let [Token::Variable(name), Token::Declare | Token::Assign, rest @ ..] = tokens {
        let new = tokens[1] == Token::Declare;
        return Ok(Node::Action(Some((name.clone(), new)), pipeline(rest)?));
    }
    Ok(Node::Action(None, pipeline(tokens)?))
}

/// `$k, $v := pipeline`
fn declared(tokens: &[Token]) -> anyhow::Result<(Vec<String>, Pipeline)> {
    match tokens {
        [Token::Variable(one), Token::Declare, rest @ ..] => {
            Ok((vec![one.clone()], pipeline(rest)?))
        }
        [
            Token::Variable(one),
            Token::Sign(','),
            Token::Variable(two),
            Token::Declare,
            rest @ ..,
        ] => Ok((vec![one.clone(), two.clone()], pipeline(rest)?)),
        _ => Ok((Vec::new(), pipeline(tokens)?)),
    }
}

fn pipeline(tokens: &[Token]) -> anyhow::Result<Pipeline> {
    let mut commands = vec![Vec::new()];
    let mut at = 0;
    while at < tokens.len() {
        let path = |after: usize| match tokens.get(after) {
            Some(Token::Path(path)) if !path.is_empty() => (path.clone(), 1),
            _ => (Vec::new(), 0),
        };
        let operand = match &tokens[at] {
            Token::Sign('|') => {
                commands.push(Vec::new());
                at += 1;
                continue;
            }
            Token::Sign('(') => {
                let close = matching(&tokens[at..])? + at;
                let inner = pipeline(&tokens[at + 1..close])?;
                let (path, length) = path(close + 1);
                at = close + length;
                Operand::Group(inner, path)
            }
            Token::Variable(name) => {
                let (path, length) = path(at + 1);
                at += length;
                Operand::Variable(name.clone(), path)
            }
            Token::Path(path) => Operand::Dot(path.clone()),
            Token::Text(text) => Operand::Literal(text.as_str().into()),
            Token::Word(word) => word_operand(word)?,
            other => bail!("unexpected {other:?}"),
        };
        commands.last_mut().context("a pipeline has a command")?.push(operand);
        at += 1;
    }
    if commands.iter().any(Vec::is_empty) {
        bail!("missing value for command");
    }
    Ok(commands)
}

fn matching(tokens: &[Token]) -> anyhow::Result<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(index);
        }
    }
    bail!("unclosed left paren")
}

fn word_operand(word: &str) -> anyhow::Result<Operand> {
    if let Ok(value @ (Value::Number(_) | Value::Bool(_))) = serde_json::from_str::<Value>(word) {
        return Ok(Operand::Literal(value));
    }
    if word == "nil" {
        return Ok(Operand::Literal(Value::Null));
    }
    if !functions::NAMES.contains(&word) {
        bail!("function {word:?} not defined");
    }
    Ok(Operand::Function(word.to_owned()))
}
