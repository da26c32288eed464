//! UDP: the server answers every datagram with its version.

use std::net::UdpSocket;
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers in the background.
pub fn serve(port: u16, answer: String) -> Result<(), String> {
    let socket = UdpSocket::bind(("0.0.0.0", port))
        .map_err(|error| format!("cannot receive datagrams on port {port}: {error}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            // A client that is gone is reported by the next call, and is not an error of the server.
            if let Ok((_, client)) = socket.recv_from(&mut buffer) {
                socket.send_to(answer.as_bytes(), client).ok();
            }
        }
    });
    Ok(())
}

/// The answer to one datagram.
pub fn ask(address: &str) -> Result<String, String> {
    let exchange = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        // Only answers from there are received.
        socket.connect(address)?;
        socket.send(b"?")?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    exchange().map_err(|error: std::io::Error| format!("no answer from {address}: {error}"))
}
