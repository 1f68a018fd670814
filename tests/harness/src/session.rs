//! A connection for tests: what should work must work, what should be refused must be refused, and the message of a
//! failed test holds the statement.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use postgres::error::DbError;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A connection, and the notices that came over it.
pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<DbError>>>,
}

impl Session {
    /// Connects, or says why not.
    pub fn try_connect(mut config: Config) -> Result<Self, postgres::Error> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        config.notice_callback(move |notice| sink.lock().expect("no test panics while it holds this").push(notice));
        Ok(Self { client: config.connect(NoTls)?, notices })
    }

    /// Runs one or more statements that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql) {
            panic!("{}\nin: {sql}", explain(&error));
        }
    }

    /// Runs statements that must be refused, and returns the error.
    #[track_caller]
    pub fn refused(&mut self, sql: &str) -> DbError {
        match self.client.batch_execute(sql) {
            Ok(()) => panic!("not refused: {sql}"),
            Err(error) => match error.as_db_error() {
                Some(refusal) => refusal.clone(),
                None => panic!("{}\nin: {sql}", explain(&error)),
            },
        }
    }

    /// The SQLSTATE with which statements are refused that must be.
    #[track_caller]
    pub fn sqlstate(&mut self, sql: &str) -> String {
        self.refused(sql).code().code().to_owned()
    }

    /// The rows of a query, as text.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        match self.client.simple_query(sql) {
            Err(error) => panic!("{}\nin: {sql}", explain(&error)),
            Ok(messages) => messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect(),
        }
    }

    /// The first column of a query; NULL is the empty string.
    #[track_caller]
    pub fn column(&mut self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().map(|mut row| row.swap_remove(0).unwrap_or_default()).collect()
    }

    /// The only value of a query, or None for NULL.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> Option<String> {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "rows of: {sql}");
        rows.swap_remove(0).swap_remove(0)
    }

    /// The only value of a query, which is not NULL.
    #[track_caller]
    pub fn text(&mut self, sql: &str) -> String {
        self.value(sql).unwrap_or_else(|| panic!("NULL from: {sql}"))
    }

    /// The only value of a query as a number.
    #[track_caller]
    pub fn number(&mut self, sql: &str) -> i64 {
        self.text(sql).parse().unwrap_or_else(|error| panic!("{error} in: {sql}"))
    }

    /// True when the only value of a query is true.
    #[track_caller]
    pub fn holds(&mut self, sql: &str) -> bool {
        self.text(sql) == "t"
    }

    /// Buffers that a query touches, cached or not.
    #[track_caller]
    pub fn buffers(&mut self, sql: &str) -> i64 {
        let plan = self.text(&format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}"));
        let of = |name: &str| {
            let (_, rest) = plan.split_once(&format!("\"{name}\": ")).expect("buffers were asked for");
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            digits.parse::<i64>().expect("a number")
        };
        of("Shared Hit Blocks") + of("Shared Read Blocks")
    }

    /// The process at the other end of the connection.
    pub fn backend_pid(&mut self) -> u32 {
        u32::try_from(self.number("SELECT pg_backend_pid()")).expect("process ids are positive")
    }

    /// The notices since the last call.
    pub fn notices(&mut self) -> Vec<String> {
        let mut notices = self.notices.lock().expect("no test panics while it holds this");
        notices.drain(..).map(|notice| notice.message().to_owned()).collect()
    }

    /// The major version of the server.
    pub fn major(&mut self) -> i64 {
        self.number("SELECT current_setting('server_version_num')::int / 10000")
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// All that the server said: the Display of the driver's error leaves out the best of it.
pub(crate) fn explain(error: &postgres::Error) -> String {
    let Some(error) = error.as_db_error() else {
        return format!("{error:?}");
    };
    let mut text = format!("{} {}: {}", error.severity(), error.code().code(), error.message());
    for (label, part) in [("DETAIL", error.detail()), ("HINT", error.hint()), ("CONTEXT", error.where_())] {
        if let Some(part) = part {
            text.push_str(&format!("\n{label}: {part}"));
        }
    }
    text
}
