//! The sending of answers: in pieces, by a task of their own, and what is held until the end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::inflight::Seat;
use crate::rest::{Body, BodyError};

/// How long an answer may take to be sent, unless it is a watch or a session (upstream's
/// `--request-timeout`): a client that does not read must give up its seat.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);

/// The pieces of an answer, made by a task one ahead of the client, which ends with `late` if the
/// client has not read all of them in time. `seat` and all that `pieces` holds are given back then,
/// although the client's connection still holds on to the stream.
pub fn in_time<T: Send + 'static>(
    pieces: impl Stream<Item = T> + Send + 'static,
    seat: Seat,
    late: impl FnOnce() -> T + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    // `None` is the end: without it the task has given up.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let sending = async {
            let mut pieces = std::pin::pin!(pieces);
            while let Some(piece) = pieces.next().await {
                if sender.send(Some(piece)).await.is_err() {
                    return;
                }
            }
            sender.send(None).await.ok();
        };
        let in_time = tokio::time::timeout(ANSWER_TIME, sending).await;
        if in_time.is_err() {
            tracing::debug!("a client did not read its answer in time");
        }
        drop(seat);
    });
    futures::stream::unfold(Some((receiver, late)), |state| async move {
        let (mut receiver, late) = state?;
        match receiver.recv().await {
            Some(Some(piece)) => Some((piece, Some((receiver, late)))),
            Some(None) => None,
            None => Some((late(), None)),
        }
    })
}

/// The same body, which holds `held` until it has been sent or given up.
pub fn hold<H: Send + Unpin + 'static>(body: Body, held: H) -> Body {
    Held { body, _held: held }.boxed_unsync()
}

struct Held<H> {
    body: Body,
    _held: H,
}

impl<H: Unpin> http_body::Body for Held<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What the pieces hold, and the seat, are given back although the client holds the stream.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_holds_nothing() {
        let memory = Arc::new(());
        let held = memory.clone();
        let pieces = futures::stream::repeat_with(move || {
            let _part_of_it = &held;
            Some(1)
        });
        let mut stream = Box::pin(in_time(pieces, Seat::default(), || None));
        assert_eq!(stream.next().await, Some(Some(1)));
        assert_eq!(Arc::strong_count(&memory), 2);
        tokio::time::sleep(ANSWER_TIME + Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&memory), 1);
        let rest: Vec<_> = stream.collect().await;
        assert_eq!(rest, [Some(1), None], "one piece ahead, then the end");
    }

    #[tokio::test]
    async fn all_pieces_arrive_in_order() {
        let all: Vec<_> =
            in_time(futures::stream::iter(0..100), Seat::default(), || -1).collect().await;
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
