#!/usr/bin/env bash
# Makes the certificates that the tests use, good for a hundred years: a CA, a server's for this machine, one that has
# expired, one for another name, and one that nobody signed. Run it in this folder; the keys guard nothing.
set -eu
days=36500
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days $days -subj "/CN=modelhub test CA" \
    -addext "basicConstraints=critical,CA:true" -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.pem
make() { # NAME SUBJECT-ALTERNATIVE-NAMES OPTIONS...
    name=$1 names=$2
    shift 2
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial "$@" -out "$name.crt" -extfile <(
        echo "subjectAltName=$names"
        echo "basicConstraints=CA:false"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=serverAuth"
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
    )
    cat "$name.crt" "$name.key" > "$name.pem"
    rm "$name.crt" "$name.key" "$name.csr"
}
here="IP:127.0.0.1,IP:::1,DNS:localhost"
make server "$here" -days $days
make expired "$here" -days -1
make elsewhere "DNS:elsewhere.example" -days $days
rm -f ca.key ca.srl
