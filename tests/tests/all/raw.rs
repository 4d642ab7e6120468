//! A server of bare bytes, for what even a scripted origin does in too good an order.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Serves each connection, counted from 0, on a thread of its own for as long as the tests run; gives the port.
pub fn server(serve: impl Fn(usize, TcpStream) -> io::Result<()> + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let (Ok(socket), serve) = (socket, serve.clone()) else { continue };
            // A connection that breaks is the other side's doing, which is what the test looks at.
            std::thread::spawn(move || socket.set_nodelay(true).and_then(|()| serve(number, socket)));
        }
    });
    port
}

/// Reads one request's head, and whatever came with it.
pub fn head(socket: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whether the other side neither sent nor closed anything for so long.
pub fn is_silent(socket: &TcpStream, how_long: Duration) -> bool {
    socket.set_read_timeout(Some(how_long)).unwrap();
    let silent = matches!(socket.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
    socket.set_read_timeout(Some(vestibule_tests::PATIENCE)).unwrap();
    silent
}

/// A connection to a port of this machine, on which nothing waits for ever.
pub fn connected(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(vestibule_tests::PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Waits until the other side has closed; whether it did, in order or by a reset.
pub fn is_closed(socket: &mut TcpStream) -> bool {
    match io::copy(socket, &mut io::sink()) {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    }
}
