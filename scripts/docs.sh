#!/usr/bin/env bash
# Makes a site of the documentation (`make docs`). The pages, and the files that they link to, are copied with the folders that
# they are in, so that every link works there as it does in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

site=target/docs
rm -rf "$site"
mkdir -p "$site/src/proto"
cp docs/book.toml docs/site.css "$site/"
cp ./*.md deploy docs bench "$site/src/" -r
cp -r proto/fovea "$site/src/proto/"
mkdir -p "$site/src/python"
cp -r python/README.md python/examples "$site/src/python/"
# mdBook wants the table of contents at the top.
sed -E 's|\]\(([a-z])|](docs/\1|; s|\]\(\.\./|](|' docs/SUMMARY.md > "$site/src/SUMMARY.md"
rm "$site"/src/docs/{SUMMARY.md,book.toml,site.css}
# A folder's README.md becomes its index.html, and mdBook does not correct links to it.
find "$site/src" -name README.md -execdir mv {} index.md \;
find "$site/src" -name '*.md' -exec sed -i -E 's|(\]\([^)]*)README\.md|\1index.md|g' {} +

.docs-tools/bin/mdbook build "$site"
echo "the site is in $site/html: open $site/html/index.html"
