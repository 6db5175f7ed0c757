// Makes the server's page: one file, with its script and style in it, so that one request brings all of it and a policy can name its hash.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** @returns the files that went into it, for the notices. */
export async function buildPage(root) {
  const { build } = await import("esbuild");
  const folder = join(root, "src", "serve", "page");
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: [join(folder, "main.tsx"), join(folder, "style.css")],
    outdir: "page",
    bundle: true,
    write: false,
    minify: true,
    format: "iife",
    target: ["es2022", "safari16"],
    jsx: "automatic",
    jsxImportSource: "preact",
    metafile: true,
    logLevel: "warning",
    charset: "ascii",
  });
  const textOf = (name) => outputFiles.find(({ path }) => path.endsWith(name)).text.trim();
  // What ends the element must not stand in it.
  const script = textOf("main.js").replaceAll("</script", "<\\/script");
  const html = readFileSync(join(folder, "index.html"), "utf8")
    .replace("<style>", () => `<style>${textOf("style.css")}`)
    .replace("<script>", () => `<script>${script}`);
  mkdirSync(join(root, "dist", "serve"), { recursive: true });
  writeFileSync(join(root, "dist", "serve", "page.html"), html);
  return Object.keys(metafile.inputs);
}
