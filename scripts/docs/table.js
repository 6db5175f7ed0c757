const row = (cells) => `| ${cells.join(" | ")} |`;

/** A table in Markdown. */
export function table(head, rows) {
  return [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n");
}
