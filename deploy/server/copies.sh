# shellcheck shell=bash disable=SC2154
# Backup, restore, upgrade and gc: read by `server`.

installed() { python -c 'from importlib.metadata import version; print(version("mlflow"))'; }

# What a directory is a backup of; `restore` compares it with what is installed.
describe() {
    echo "mlflow $(installed)"
    echo "schema $(sql "$(database)" -c 'SELECT version_num FROM alembic_version')"
    echo "runs $(sql "$(database)" -c 'SELECT count(*) FROM runs')"
    echo "taken $(date -Is)"
}

# A row never names a file that the copy lacks: files are copied after the rows. Called again, it brings the directory up
# to date and copies only what has changed.
backup() {
    local to=$1
    mkdir -p "$to/artifacts" "$to/new"
    describe >"$to/new/about"
    pg_dump --format=custom --file="$to/new/mlflow.dump" "$(database)"
    pg_dump --format=custom --file="$to/new/users.dump" "$(users)"
    files copy --checksum "$bucket" "$to/artifacts"
    # Until here the dumps of an earlier backup, and all their files, were as they had been.
    rm -f "$to/SHA256SUMS"
    mv "$to/new"/* "$to"
    rmdir "$to/new"
    files sync --checksum "$bucket" "$to/artifacts"
    (cd "$to" && find . -type f ! -name 'SHA256SUMS*' -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS.new)
    mv "$to/SHA256SUMS.new" "$to/SHA256SUMS"
    say "$to: $(wc -l <"$to/SHA256SUMS") files, $(du -sh "$to" | cut -f1); $(paste -sd, "$to/about")"
}

restore() {
    local from=$1 name theirs
    [ -r "$from/SHA256SUMS" ] || fail "$from is no backup, or one that was broken off: it has no SHA256SUMS"
    (cd "$from" && sha256sum --check --quiet --strict SHA256SUMS) || fail "$from is damaged; nothing was changed"
    ! is_running || fail "the server runs; server stop"
    [ -z "${OWN_DATABASE_PORT:-}" ] || start_database
    theirs=$(sed -n 's/^mlflow //p' "$from/about")
    [ "$(printf '%s\n' "$theirs" "$(installed)" | sort -V | head -n 1)" = "$theirs" ] ||
        fail "MLflow $theirs has written $from, and here is $(installed); install that version, or a newer one"
    for name in "$(database)" "$(users)"; do
        [ "$(sql "$name" -c "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")" = 0 ] ||
            fail "$name is not empty, and nothing was changed; to restore into it, drop and make it anew first"
    done
    [ -z "$(files lsf "$bucket" --max-depth 1)" ] || fail "$MLFLOW_ARTIFACTS_DESTINATION is not empty"
    pg_restore --no-owner --single-transaction --exit-on-error --dbname="$(database)" "$from/mlflow.dump"
    pg_restore --no-owner --single-transaction --exit-on-error --dbname="$(users)" "$from/users.dump"
    files copy --checksum "$from/artifacts" "$bucket"
    files check --one-way "$from/artifacts" "$bucket" 2>/dev/null ||
        fail "not all files have arrived; make both databases and the bucket anew, empty, and restore again"
    say "restored: $(paste -sd, "$from/about"); server start, then cifar-mlflow doctor, which proves each champion whole"
}

# `mlflow db upgrade` is not transactional: there is no way back but the backup.
upgrade() {
    stop
    [ -z "${OWN_DATABASE_PORT:-}" ] || start_database
    backup "$1"
    mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
    python -m mlflow.server.auth db upgrade --url "${MLFLOW_BACKEND_STORE_URI}_users"
    start
}

# MLflow's gc knows nothing of registered models: what an alias names must not go, nor the run that it came from.
collect_garbage() {
    local named
    named=$(sql "$(database)" <<'END'
SELECT DISTINCT format('%s@%s (version %s)', a.name, a.alias, a.version)
FROM registered_model_aliases a
JOIN model_versions v ON v.name = a.name AND v.version = a.version
LEFT JOIN runs r ON r.run_uuid = v.run_id
LEFT JOIN experiments e ON e.experiment_id = r.experiment_id
LEFT JOIN logged_models m ON v.source = 'models:/' || m.model_id
WHERE r.lifecycle_stage = 'deleted' OR e.lifecycle_stage = 'deleted' OR m.lifecycle_stage = 'deleted'
END
    )
    [ -z "$named" ] || fail "gc would remove what an alias names: $named; restore the run or remove the alias first"
    MLFLOW_TRACKING_URI=$address MLFLOW_TRACKING_USERNAME=$MLFLOW_AUTH_ADMIN_USERNAME \
        MLFLOW_TRACKING_PASSWORD=$MLFLOW_AUTH_ADMIN_PASSWORD \
        mlflow gc --backend-store-uri "$MLFLOW_BACKEND_STORE_URI" --older-than "$1"
}
