import { useEffect, useState } from "preact/hooks";
import type { Api, Variant } from "./api.js";

/**
 * Where the browser finds a video's content. Without a key that is its address, so the browser streams. With one the page fetches it
 * with the header, since a link that carries a key ends up in histories and logs. @returns undefined until it is there.
 */
export function useContent(api: Api, id: string | undefined, variant: Variant): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    setUrl(undefined);
    if (id === undefined) return undefined;
    const path = `/v1/videos/${id}/content?variant=${variant}`;
    if (api.key === undefined) {
      setUrl(path);
      return undefined;
    }
    let made: string | undefined;
    let over = false;
    void (async () => {
      const response = await api.call("GET", path).catch(() => undefined);
      const blob = await response?.blob();
      if (over || !blob) return;
      made = URL.createObjectURL(blob);
      setUrl(made);
    })();
    return () => {
      over = true;
      if (made !== undefined) URL.revokeObjectURL(made);
    };
  }, [api, id, variant]);
  return url;
}
