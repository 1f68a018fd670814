//! The C symbols that `sql/` names, and what each calls. A symbol that was released once stays for ever: an old install script may name it.

use super::fmgr::sql_function;
use crate::{
    capture, checkpoint, ddl, grants, guard, key, maintenance, proof, protect, seal, sealer, verify, views, watch,
};

sql_function!(audit_row, pg_finfo_audit_row, capture::row_change);
sql_function!(audit_truncate, pg_finfo_audit_truncate, capture::truncation);
sql_function!(audit_guard, pg_finfo_audit_guard, guard::guard);
sql_function!(audit_protect, pg_finfo_audit_protect, protect::protect);
sql_function!(audit_unprotect, pg_finfo_audit_unprotect, protect::unprotect);
sql_function!(audit_cover, pg_finfo_audit_cover, ddl::event);
sql_function!(audit_maintenance, pg_finfo_audit_maintenance, maintenance::maintenance);
sql_function!(audit_guard_level, pg_finfo_audit_guard_level, watch::guard_level);
sql_function!(audit_verify, pg_finfo_audit_verify, verify::verify);
sql_function!(audit_findings, pg_finfo_audit_findings, verify::findings);
sql_function!(audit_seal, pg_finfo_audit_seal, seal::seal);
sql_function!(audit_inclusion_proof, pg_finfo_audit_inclusion_proof, proof::inclusion_proof);
sql_function!(audit_consistency_proof, pg_finfo_audit_consistency_proof, proof::consistency_proof);
sql_function!(audit_verify_inclusion, pg_finfo_audit_verify_inclusion, proof::verify);
sql_function!(audit_line, pg_finfo_audit_line, views::line);
sql_function!(audit_export, pg_finfo_audit_export, views::export);
sql_function!(audit_export_seals, pg_finfo_audit_export_seals, views::export_seals);
sql_function!(audit_log_state, pg_finfo_audit_log_state, views::log_state);
sql_function!(audit_trigger_states, pg_finfo_audit_trigger_states, views::trigger_states);
sql_function!(audit_public_key, pg_finfo_audit_public_key, key::public_key);
sql_function!(audit_checkpoint, pg_finfo_audit_checkpoint, checkpoint::checkpoint);
sql_function!(audit_grant_auditor, pg_finfo_audit_grant_auditor, grants::grant_auditor);
sql_function!(audit_sealer, pg_finfo_audit_sealer, sealer::state);
