//! Every function of the schema, called with whatever its argument types allow by roles that may call it and by one that may not: an error or nothing,
//! never the end of a backend, never a right more than before.
//!
//! Functions are listed from the catalog, so that one that is added later is fuzzed as well. Choices depend on a fixed seed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use audit_tests::{Cluster, Database, Rng, Session, assert_clean, wait_until};

/// Has no right in the schema.
const STRANGER: &str = "fuzz_stranger";
/// May call everything, and read nothing.
const CALLER: &str = "fuzz_caller";
/// May call everything and read everything.
const AUDITOR: &str = "fuzz_auditor";

/// A server of its own: the log of a shared one would not show whose backend ended.
fn scene(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    let mut s = database.connect();
    s.run(&format!(
        r#"CREATE TABLE account (id int PRIMARY KEY, v text); SELECT audit.protect('account'); INSERT INTO account VALUES (1, 'a'), (2, 'b');
           SELECT audit.seal(); CREATE VIEW look AS SELECT * FROM account; CREATE SEQUENCE numbers; CREATE TYPE pair AS (a int, b int);
           CREATE ROLE {STRANGER} LOGIN; CREATE ROLE {CALLER} LOGIN; CREATE ROLE {AUDITOR} LOGIN;
           GRANT ALL ON SCHEMA public TO PUBLIC; GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC;
           GRANT USAGE ON SCHEMA audit TO {CALLER}, {AUDITOR}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA audit TO {CALLER}, {AUDITOR};
           GRANT SELECT ON ALL TABLES IN SCHEMA audit TO {AUDITOR}; GRANT SELECT ON account TO {AUDITOR}"#,
        name = database.name
    ));
    database
}

/// A function as the catalog has it.
struct Function {
    name: String,
    types: Vec<String>,
    is_set: bool,
    result: String,
}

fn functions(s: &mut Session) -> Vec<Function> {
    s.rows(
        "SELECT proname, proretset, array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes::oid[]) AS t), ';'), format_type(prorettype, NULL)
           FROM pg_proc WHERE pronamespace = 'audit'::regnamespace ORDER BY oid",
    )
    .into_iter()
    .map(|row| {
        let text = |column: usize| row[column].clone().unwrap_or_default();
        let types = text(2).split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Function { name: text(0), types, is_set: text(1) == "t", result: text(3) }
    })
    .collect()
}

/// Values of a type that somebody with bad intent would try.
fn values(type_name: &str) -> Vec<String> {
    let values: &[&str] = match type_name {
        "text" => &[
            "''",
            "'x'",
            "E'\\n'",
            "E'\\x01\\x7f'",
            "'%s%n%x'",
            "repeat('x', 5000000)",
            "repeat(E'x\\n', 500000)",
            "repeat('—', 300000)",
            "'audit/x\n1\nAAAA\n'",
            "(SELECT audit.checkpoint())",
            "(SELECT audit.checkpoint()) || 'x'",
            "'changed'",
            "'full'",
            "'; DROP TABLE account; --'",
            "(SELECT audit.inclusion_proof(chain, seq) FROM audit.export() LIMIT 1)",
            "(SELECT line FROM audit.export() LIMIT 1)",
            "overlay((SELECT audit.checkpoint()) placing '—' from 40)",
            "U&'\\+01F4A9'",
        ],
        "bigint" => &["0", "1", "2", "-1", "9223372036854775807", "-9223372036854775808", "4294967296", "255", "256"],
        "integer" => {
            &["0", "1", "-1", "2147483647", "-2147483648", "1000003", "(SELECT max(chain) FROM audit.export())"]
        }
        "boolean" => &["true", "false"],
        "regclass" => &[
            "0",
            "1",
            "4294967295",
            "'account'",
            "'audit.log'",
            "'audit.protected'",
            "'look'",
            "'numbers'",
            "'pair'",
            "'pg_class'",
            "'pg_authid'",
            "'account_pkey'",
            "'pg_toast.pg_toast_2618'",
            "'pg_stat_activity'",
            "'mine'",
            "'temporary'",
        ],
        "text[]" => &[
            "'{}'",
            "'{NULL}'",
            "'{a,NULL,b}'",
            "'{{v,v},{v,v}}'",
            "'[5:6]={v,id}'",
            "'{id}'",
            "'{v}'",
            "'{\"\"}'",
            "array_fill('v'::text, ARRAY[100000])",
            "ARRAY[repeat('x', 1000000)]",
        ],
        "jsonb" => &[
            "'{}'",
            "'[]'",
            "'null'",
            "'{\"user\": \"x\"}'",
            "to_jsonb(repeat('x', 1000000))",
            "(repeat('[', 1000) || repeat(']', 1000))::jsonb",
        ],
        "regrole" => &["0", "4294967295", "'postgres'", "'fuzz_caller'", "'pg_read_all_data'", "'pg_monitor'"],
        "regnamespace" => &["0", "4294967295", "'public'", "'audit'", "'pg_catalog'", "'pg_toast'"],
        "interval" => &["'0'", "'-1 day'", "'178000000 years'", "'1 us'"],
        "timestamp with time zone" => &["'infinity'", "'-infinity'", "'4714-11-24 BC'", "'294276-12-31'", "now()"],
        "oid" => &["0", "1", "4294967295", "'account'::regclass"],
        _ => &[],
    };
    let typed = values.iter().map(|value| format!("({value})::{type_name}"));
    std::iter::once(format!("NULL::{type_name}")).chain(typed).collect()
}

/// Ways to call a function of these arguments.
fn calls(function: &Function, arguments: &str) -> Vec<String> {
    let call = format!("audit.{}({arguments})", function.name);
    let mut calls = vec![format!("SELECT {call}"), format!("SELECT * FROM {call}")];
    if function.is_set {
        calls.extend([
            format!("SELECT ({call}).*"),
            format!("SELECT * FROM ROWS FROM ({call}, {call}) WITH ORDINALITY LIMIT 1"),
            format!("SELECT count(*) FROM generate_series(1, 3) AS n, LATERAL (SELECT * FROM {call} LIMIT 1) AS x"),
            format!("BEGIN; DECLARE c CURSOR FOR SELECT * FROM {call}; FETCH 1 FROM c; SAVEPOINT a; CLOSE c; ROLLBACK"),
            format!("SELECT {call} IS NULL, {call} LIMIT 2"),
        ]);
    } else {
        calls.extend([
            format!("CALL {call}"),
            format!("SELECT n, {call} FROM generate_series(1, 2) AS n GROUP BY 1, 2"),
            format!("BEGIN; SAVEPOINT a; SELECT {call}; ROLLBACK TO a; SELECT {call}; ROLLBACK"),
            format!("DO $do$ BEGIN PERFORM {call}; EXCEPTION WHEN OTHERS THEN PERFORM {call}; END $do$"),
        ]);
    }
    calls
}

/// What a role could have gained.
fn rights(s: &mut Session) -> Vec<String> {
    s.column(
        "SELECT format('%s', r) FROM pg_roles r WHERE rolname LIKE 'fuzz%'
         UNION ALL SELECT format('%s', m) FROM pg_auth_members m
         UNION ALL SELECT format('%s %s %s', oid, relowner, relacl) FROM pg_class WHERE relnamespace = 'audit'::regnamespace
         UNION ALL SELECT format('%s %s %s', oid, proowner, proacl) FROM pg_proc WHERE pronamespace = 'audit'::regnamespace
         UNION ALL SELECT format('%s %s', nspowner, nspacl) FROM pg_namespace WHERE nspname = 'audit'
         UNION ALL SELECT format('%s', r) FROM audit.registry r WHERE relation = 'account'::regclass
         ORDER BY 1",
    )
}

#[track_caller]
fn assert_nobody_was_harmed(cluster: &Cluster, s: &mut Session, before: &[String]) {
    let log = cluster.server_log();
    for word in ["terminated by signal", "PANIC", "server process", "crash of another", "panicked at"] {
        let line = log.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{line:?}");
    }
    assert_eq!(rights(s), before, "rights have changed");
    assert_clean(s);
}

/// Runs a call; the same backend must answer afterwards.
#[track_caller]
fn survive(s: &mut Session, pid: u32, call: &str) -> bool {
    let result = s.simple_query(call);
    if let Err(error) = &result {
        let Some(error) = error.as_db_error() else { panic!("the backend has ended: {error}\nin: {call}") };
        // Nothing of ours takes longer for arguments like these, and no internal error shows.
        assert!(
            !["57014", "XX000"].contains(&error.code().code()) || call.contains("pg_toast"),
            "{error}\nin: {}",
            &call[..call.len().min(500)]
        );
    }
    s.batch_execute("ROLLBACK").expect("outside of a transaction it is a warning");
    assert_eq!(s.backend_pid(), pid, "{call}");
    result.is_ok()
}

#[test]
fn no_argument_of_any_function_harms_anybody() {
    let cluster = Cluster::builder().start();
    let database = scene(&cluster);
    let mut s = database.connect();
    let functions = functions(&mut s);
    assert!(functions.len() >= 20, "{} functions", functions.len());
    let before = rights(&mut s);
    for role in [STRANGER, CALLER, AUDITOR] {
        let mut rng = Rng::new(4);
        let mut attacker = database.connect_as(role);
        attacker.run("CREATE TEMPORARY TABLE temporary (id int); CREATE TABLE IF NOT EXISTS mine (id int, v text); SET statement_timeout = '20s'");
        let pid = attacker.backend_pid();
        let (mut tried, mut worked) = (0, 0);
        for function in &functions {
            let choices: Vec<Vec<String>> = function.types.iter().map(|name| values(name)).collect();
            // Each value of each argument at least once, with random company.
            let rounds = choices.iter().map(Vec::len).max().map_or(6, |most| 3 * most);
            for round in 0..rounds {
                let arguments: Vec<&str> = choices
                    .iter()
                    .map(|values| {
                        let index =
                            if rng.chance(50) { round % values.len() } else { rng.below(values.len() as u64) as usize };
                        values[index].as_str()
                    })
                    .collect();
                let calls = calls(function, &arguments.join(", "));
                let call = &calls[round % calls.len()];
                tried += 1;
                worked += usize::from(survive(&mut attacker, pid, call));
                attacker
                    .batch_execute("DISCARD TEMPORARY; CREATE TEMPORARY TABLE temporary (id int)")
                    .expect("it is his own");
            }
            // With too few and too many arguments, and as what it is not.
            for call in [
                format!("SELECT audit.{}(VARIADIC ARRAY[1, 2])", function.name),
                format!("SELECT audit.{}('x', 'y', 'z', 'w', 'v', 'u')", function.name),
                format!("SELECT audit.{}() OVER ()", function.name),
                format!("SELECT audit.{}(DISTINCT 1) FROM account", function.name),
                format!("CREATE AGGREGATE pg_temp.a{tried} (text) (SFUNC = audit.{}, STYPE = text)", function.name),
                format!(
                    "CREATE OPERATOR public.@#@ (FUNCTION = audit.{}, LEFTARG = integer, RIGHTARG = bigint)",
                    function.name
                ),
                format!(
                    "CREATE CAST (text AS bigint) WITH FUNCTION audit.{}({})",
                    function.name,
                    function.types.join(", ")
                ),
            ] {
                let _ = survive(&mut attacker, pid, &call);
            }
        }
        println!("{role}: {worked} of {tried} calls gave a result");
        match role {
            STRANGER => assert_eq!(worked, 0),
            _ => assert!(worked > tried / 10, "{role}: only {worked} of {tried}"),
        }
    }
    assert_nobody_was_harmed(&cluster, &mut s, &before);
    // What one may call, he may not write with.
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op NOT IN ('PROTECT', 'INSERT')"), 0);
}

/// A row of proofs and checkpoints, each damaged at a random place.
#[test]
fn no_damaged_proof_or_checkpoint_harms_anybody() {
    let cluster = Cluster::builder().start();
    let database = scene(&cluster);
    let mut s = database.connect();
    s.run("INSERT INTO account SELECT generate_series(10, 700), 'x'; SELECT audit.seal()");
    let before = rights(&mut s);
    let proof = s.text("SELECT audit.inclusion_proof(chain, seq) FROM audit.export() LIMIT 1 OFFSET 300");
    let line = s.text("SELECT line FROM audit.export() LIMIT 1 OFFSET 300");
    let checkpoint = s.text("SELECT audit.checkpoint()");
    assert!(
        s.query_one("SELECT audit.verify_inclusion($1, $2)", &[&line, &proof]).expect("it holds").get::<_, bool>(0)
    );
    let mut attacker = database.connect_as(AUDITOR);
    let pid = attacker.backend_pid();
    let mut rng = Rng::new(11);
    for _ in 0..1500 {
        let damage = |text: &str, rng: &mut Rng| {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=rng.below(3) {
                if bytes.is_empty() {
                    break;
                }
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(4) {
                    0 => bytes[at] = b' ' + rng.below(90) as u8,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"\n 0A+/=-\t"[rng.below(9) as usize]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (damaged, other) = (damage(&proof, &mut rng), damage(&checkpoint, &mut rng));
        let answer = attacker.query_one("SELECT audit.verify_inclusion($1, $2)", &[&line, &damaged]);
        // The checkpoint in it is bound by a signature, which this one has none of: only its root is held against the proof.
        let head = |text: &str| text.split_once("\n\n").map_or(text.to_owned(), |(head, _)| head.to_owned());
        if head(&damaged) != head(&proof)
            && let Ok(row) = answer
        {
            assert!(!row.get::<_, bool>(0), "holds all the same:\n{damaged}");
        }
        let _ = attacker.query("SELECT audit.consistency_proof($1)", &[&other]);
        if rng.chance(5) {
            let _ = attacker.query("SELECT * FROM audit.verify($1)", &[&other]);
        }
    }
    assert_eq!(attacker.backend_pid(), pid);
    assert_nobody_was_harmed(&cluster, &mut s, &before);
}

/// The old way of calling functions by number asks for no kind of function: trigger functions are called with nothing of what a trigger has.
#[test]
fn functions_called_by_number_check_how_they_were_called() {
    let cluster = Cluster::builder().start();
    let database = scene(&cluster);
    let mut s = database.connect();
    let before = rights(&mut s);
    let oids: Vec<u32> = s
        .column("SELECT oid FROM pg_proc WHERE pronamespace = 'audit'::regnamespace ORDER BY oid")
        .iter()
        .map(|oid| oid.parse().expect("a number"))
        .collect();
    for role in [STRANGER, CALLER] {
        let mut raw = Raw::connect(&cluster, &database.name, role);
        for oid in &oids {
            for arguments in [
                &[][..],
                &[None],
                &[None, None],
                &[None, None, None],
                &[None, None, None, None],
                &[Some(&[0; 4][..])],
                &[Some(&[255; 8]), Some(&[])],
            ] {
                let answer = raw.call(*oid, arguments);
                assert!(answer == 'E' || answer == 'V', "{answer}");
            }
        }
        // Nobody has ended meanwhile.
        assert_eq!(raw.call(1598, &[]), 'V', "random() answers");
    }
    // What is called as a trigger says itself that it is none.
    let log = cluster.server_log();
    assert!(log.contains("was not called by the trigger manager"), "no trigger function was reached");
    assert_nobody_was_harmed(&cluster, &mut s, &before);
}

/// A connection that speaks the protocol by hand: drivers do not know the message any more.
struct Raw(UnixStream);

impl Raw {
    fn connect(cluster: &Cluster, database: &str, role: &str) -> Raw {
        let path = cluster.file(&format!(".s.PGSQL.{}", cluster.port()));
        let mut raw = Raw(UnixStream::connect(path).expect("the server listens"));
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for word in ["user", role, "database", database] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        body.push(0);
        raw.0.write_all(&(body.len() as u32 + 4).to_be_bytes()).expect("the server reads");
        raw.0.write_all(&body).expect("the server reads");
        while raw.receive() != 'Z' {}
        raw
    }

    /// The type of the next message.
    fn receive(&mut self) -> char {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).expect("the backend has not ended");
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize - 4;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the backend has not ended");
        char::from(head[0])
    }

    /// FunctionCall, with arguments and result in binary; gives the first answer that is no notice.
    fn call(&mut self, oid: u32, arguments: &[Option<&[u8]>]) -> char {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend(1_u16.to_be_bytes());
        body.extend(1_u16.to_be_bytes());
        body.extend((arguments.len() as u16).to_be_bytes());
        for argument in arguments {
            match argument {
                None => body.extend((-1_i32).to_be_bytes()),
                Some(bytes) => {
                    body.extend((bytes.len() as u32).to_be_bytes());
                    body.extend_from_slice(bytes);
                }
            }
        }
        body.extend(1_u16.to_be_bytes());
        let mut message = vec![b'F'];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        self.0.write_all(&message).expect("the server reads");
        let mut first = None;
        loop {
            match self.receive() {
                'Z' => return first.expect("there was an answer"),
                'N' | 'S' => {}
                kind => first = first.or(Some(kind)),
            }
        }
    }
}

/// A statement that ends in the middle of any of them leaves nothing behind.
#[test]
fn cancelling_any_function_leaves_nothing_behind() {
    let cluster = Cluster::builder().start();
    let database = scene(&cluster);
    let mut s = database.connect();
    s.run("INSERT INTO account SELECT generate_series(10, 20000), 'x'; SELECT audit.seal()");
    let before = rights(&mut s);
    let mut auditor = database.connect_as(AUDITOR);
    let pid = auditor.backend_pid();
    let mut cancelled = 0;
    for function in
        functions(&mut s).iter().filter(|function| !["trigger", "event_trigger"].contains(&function.result.as_str()))
    {
        let arguments: Vec<String> = function
            .types
            .iter()
            .map(|name| match name.as_str() {
                "integer" => "(SELECT max(chain) FROM audit.log)".to_owned(),
                "bigint" => "1".to_owned(),
                "text" => "NULL".to_owned(),
                "boolean" => "true".to_owned(),
                other => values(other).pop().expect("there is NULL at least"),
            })
            .collect();
        for timeout in [1, 3, 10] {
            let call = format!(
                "SET statement_timeout = {timeout}; SELECT count(*) FROM audit.{}({})",
                function.name,
                arguments.join(", ")
            );
            if let Err(error) = auditor.batch_execute(&call) {
                cancelled +=
                    usize::from(error.as_db_error().expect("the backend has not ended").code().code() == "57014");
            }
        }
    }
    auditor.run("SET statement_timeout = 0");
    assert!(cancelled >= 4, "only {cancelled} were cancelled in time");
    assert_eq!(auditor.backend_pid(), pid);
    wait_until("no lock is left", || {
        s.number("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'fuzz_auditor' AND a.state <> 'active'") == 0
    });
    assert_nobody_was_harmed(&cluster, &mut s, &before);
}
