#!/bin/sh
# Make .environments/nginx/bin/nginx for the tests of deploy/nginx.conf: the nginx of this machine, or else the one out
# of Debian's or Ubuntu's package, unpacked there and not installed.
set -eu
cd "$(dirname "$0")/.."
environment=.environments/nginx
nginx=$environment/bin/nginx
works() { "$1" -v 2>/dev/null; }

if works "$nginx"; then exit 0; fi
rm -rf "$environment"
mkdir -p "$environment/bin"
for found in "$(command -v nginx || true)" /usr/sbin/nginx /usr/local/sbin/nginx; do
    if [ -n "$found" ] && works "$found"; then
        ln -s "$found" "$nginx"
        exit 0
    fi
done
if command -v apt-get dpkg-deb >/dev/null; then
    echo "building $environment" >&2
    apt-get -qq download --print-uris nginx >/dev/null 2>&1 || apt-get -qq update || true # needs to be root
    for package in nginx nginx-core; do # which of them holds the program depends on the release
        (cd "$environment" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb --extract "$package"_*.deb .) || true
        if works "$environment/usr/sbin/nginx"; then
            ln -s ../usr/sbin/nginx "$nginx"
            rm -f "$environment"/*.deb
            exit 0
        fi
    done
fi
echo "build_nginx.sh: there is no nginx here, and none could be unpacked; install it (Debian: apt-get install nginx-light)" >&2
exit 1
