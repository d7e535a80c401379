// What all connections of a server hold of requests, together and for each network address. An address may hold as much as
// is still free: one alone gets half, n that take all they can leave an n+1st part to the next, and no number has to be
// chosen for how many there may be.

/** What the connections of one address hold. */
export interface AddressShare {
  readonly address: string;
  connections: number;
  bytes: number;
}

export class RequestMemory {
  readonly #bytesMax: number;
  readonly #shares = new Map<string, AddressShare>();
  #bytes = 0;

  /** @param bytesMax of all together */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** A connection begins. Without an address, only all together are bounded. */
  join(address: string | undefined): AddressShare | undefined {
    if (address === undefined) return undefined;
    const share = this.#shares.get(address) ?? { address, connections: 0, bytes: 0 };
    share.connections += 1;
    this.#shares.set(address, share);
    return share;
  }

  /** A connection has ended; what its calls still hold is counted until they are over. */
  leave(share: AddressShare | undefined): void {
    if (share === undefined) return;
    share.connections -= 1;
    this.#forgetIfUnused(share);
  }

  /** Bytes came, or went if negative. */
  hold(share: AddressShare | undefined, bytes: number): void {
    this.#bytes += bytes;
    if (share === undefined) return;
    share.bytes += bytes;
    this.#forgetIfUnused(share);
  }

  /** Whether so many bytes more are within the bounds. */
  hasRoom(share: AddressShare | undefined, bytes: number): boolean {
    const free = this.#bytesMax - this.#bytes;
    return bytes <= free && (share === undefined || share.bytes + bytes <= free);
  }

  #forgetIfUnused(share: AddressShare): void {
    if (share.connections > 0 || share.bytes > 0) return;
    // What ends late may be of a share forgotten before, whose address has a new one by now.
    if (this.#shares.get(share.address) === share) this.#shares.delete(share.address);
  }
}
