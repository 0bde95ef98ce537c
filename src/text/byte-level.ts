// The byte alphabet of byte-level BPE (GPT-2): each of the 256 bytes as one printable character.

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** `byteCharacters[b]` is the character that stands for byte `b` in a byte-level vocabulary: `Ġ` for the space. */
export const byteCharacters: readonly string[] = (() => {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++)
    characters.push(String.fromCharCode(isPrintable(byte) ? byte : next++));
  return characters;
})();

const encoder = new TextEncoder();

/** The UTF-8 bytes of a text, each as its byte-level character. */
export function byteLevelCharacters(text: string): string[] {
  return Array.from(encoder.encode(text), (byte) => byteCharacters[byte]!);
}
