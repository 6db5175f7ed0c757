import { type CommandEntry, nextWords, type Offer, offers, optionWords, pathsOf, takingNext } from "./vocabulary.js";

/** A script for zsh 5 and later. */
export function zshScript(entries: readonly CommandEntry[]): string {
  const values = offers(entries).map(
    ({ at, option, offer }) => `    ${at === "*" ? `*:${option}` : `"${at}:${option}"`}) ${add(offer)}; return ;;`,
  );
  const options = entries.map(({ name }) => `      "${name}") compadd -- ${optionWords(entries, name).join(" ")} ;;`);
  const paths = pathsOf(entries).map(
    (path) => `      "${path}") compadd -- ${[...nextWords(entries, path).keys()].join(" ")} ;;`,
  );
  return `#compdef ditrun
# Completion of ditrun for zsh. To have it in every shell, add to ~/.zshrc, after compinit:
#   source <(ditrun completion zsh)
# $path is zsh's own.
_ditrun() {
  local cur=\${words[CURRENT]} prev=\${words[CURRENT-1]} at= word i
  if [[ $cur == --*=* ]]; then
    prev=\${cur%%=*}
    compset -P '*='
  fi
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    case $word in
      ${takingNext(entries).join("|")}) ((i++)) ;;
      -*) ;;
      *) at="\${at:+$at }$word" ;;
    esac
  done
  case "$at:$prev" in
${values.join("\n")}
  esac
  if [[ $cur == -* ]]; then
    case $at in
${options.join("\n")}
      *) compadd -- ${optionWords(entries, "").join(" ")} ;;
    esac
  else
    case $at in
${paths.join("\n")}
    esac
  fi
}
compdef _ditrun ditrun
`;
}

function add({ names, files, commas }: Offer): string {
  const list = names.join(" ");
  if (commas) return `compset -P '*,'; compadd -S '' -- ${list}`;
  const words = names.length === 0 ? [] : [`compadd -- ${list}`];
  const paths = files === "none" ? [] : [files === "files" ? "_files" : "_files -/"];
  return [...words, ...paths].join("; ") || ":";
}
