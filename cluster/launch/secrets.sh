#!/bin/sh
# sh cluster/launch/secrets.sh
# Makes the secrets of compose.yaml, random ones, outside the repository; those that are there stay.
set -eu
umask 077
folder=${CHRONOTUNE_SECRETS:-$HOME/.config/chronotune}
mkdir -p "$folder" && chmod 700 "$folder" && cd "$folder"

random() {  # $1 hexadecimal digits
    head -c "$(($1 / 2))" /dev/urandom | od -An -tx1 | tr -d ' \n'
}

for name in ray_token postgres_password grafana_password; do
    [ -s "$name" ] || random 64 > "$name"
done

if ! [ -s s3_credentials ]; then
    key=$(random 20) secret=$(random 64)
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" > s3_credentials
    identity='{"identities": [{"name": "chronotune", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], '
    printf "$identity"'"actions": ["Admin", "Read", "Write", "List"]}]}\n' "$key" "$secret" > s3_identities.json
fi

# the containers read them as user 1000
case $(id -u) in
    0) chown -R 1000 . ;;
    1000) ;;
    *) echo "now: sudo chown -R 1000 $folder" >&2 ;;
esac
