/**
 * Every rule by which this library refuses something, in one table: RFC 9420 sections 6 (framing), 7.3 (leaf nodes),
 * 7.4–7.9 (tree), 10.1 (KeyPackages), 12.1 (proposals), 12.2 (proposal lists), 12.3–12.4 (commits and Welcomes).
 *
 * Numbers below 1000 are OpenMLS's ValSem numbers. The others are the RFC section followed by two digits: 7304 is the
 * fourth rule of section 7.3, 12431 stands in section 12.4.3. A check names its rule where it is made; a refusal carries
 * the number and the name to the caller.
 */

export interface ValidationRule {
  readonly number: number;
  /** Section of RFC 9420, or of the library's own documentation when it says so. */
  readonly section: string;
  readonly text: string;
}

export const validationRules = {
  // Framing
  malformed: {
    number: 601,
    section: '6',
    text: 'A message decodes completely, with nothing left over, within its limits.',
  },
  protocolVersion: { number: 602, section: '6', text: 'The protocol version of an MLSMessage is mls10.' },
  wireFormat: { number: 603, section: '6', text: 'The wire format is one that this function takes.' },
  groupId: { number: 2, section: '6.1', text: 'group_id is that of the group.' },
  epochFuture: { number: 3, section: '6.1', text: 'The epoch is not later than the current one.' },
  epochPast: {
    number: 604,
    section: '6.3',
    text: 'Handshakes are of the current epoch, application messages of a retained one.',
  },
  senderMember: { number: 4, section: '6.1', text: 'A member sender is a non-blank leaf.' },
  applicationEncrypted: {
    number: 5,
    section: '6.2',
    text: 'Application data is sent as PrivateMessage only, by a member.',
  },
  decryption: { number: 6, section: '6.3', text: 'Sender data and ciphertext decrypt.' },
  membershipTagPresent: {
    number: 7,
    section: '6.2',
    text: 'A PublicMessage of a member has a membership_tag, others have none.',
  },
  membershipTag: { number: 8, section: '6.2', text: 'The membership_tag verifies.' },
  confirmationTagPresent: {
    number: 9,
    section: '6.1',
    text: 'A commit has a confirmation_tag, other content has none.',
  },
  framedSignature: { number: 10, section: '6.1', text: 'The signature over FramedContentTBS verifies.' },
  padding: { number: 11, section: '6.3.1', text: 'The padding of a PrivateMessage is all zero.' },
  senderType: { number: 605, section: '6.1', text: 'The sender type may send this content, and the group allows it.' },
  generationUsed: { number: 901, section: '9.1', text: 'The key of this generation has not been used or dropped.' },
  ownGeneration: {
    number: 903,
    section: '9.1',
    text: 'A message that names ourselves as its sender has a generation we have sent.',
  },
  generationAhead: { number: 902, section: '9.1', text: 'The generation is at most skipAheadMax ahead.' },

  // Leaf nodes and KeyPackages
  leafSignature: { number: 7301, section: '7.3', text: 'The signature of a leaf node verifies.' },
  leafCredential: { number: 7302, section: '7.3', text: 'The application accepts the credential of a leaf node.' },
  leafRequiredCapabilities: {
    number: 7303,
    section: '7.3',
    text: 'A leaf node has the capabilities the group requires.',
  },
  leafCredentialSupport: { number: 7304, section: '7.3', text: 'Every member supports every credential type in use.' },
  leafLifetime: {
    number: 7305,
    section: '7.3',
    text: 'The current time lies within the lifetime of a leaf node from a KeyPackage.',
  },
  leafExtensions: {
    number: 7306,
    section: '7.3',
    text: 'A leaf node lists the types of its own extensions, each once, among its capabilities.',
  },
  leafSource: { number: 7307, section: '7.3', text: 'leaf_node_source fits the place where the leaf node stands.' },
  leafKeyReplaced: { number: 7308, section: '7.3', text: 'A replacing leaf node has a new encryption_key.' },
  leafKeysValid: {
    number: 7309,
    section: '5.1',
    text: 'Encryption and signature keys are well-formed for the cipher suite.',
  },
  leafSuite: { number: 7310, section: '7.2', text: 'A leaf node supports the version and cipher suite of the group.' },
  keyPackageSignature: { number: 1001, section: '10.1', text: 'The signature of a KeyPackage verifies.' },
  keyPackageInitKey: { number: 104, section: '10.1', text: 'init_key differs from the leaf encryption_key.' },
  keyPackageSuite: {
    number: 105,
    section: '10.1',
    text: 'Version and cipher suite of a KeyPackage are those of the group.',
  },
  keyPackageExtensions: {
    number: 1002,
    section: '13.4',
    text: 'Each KeyPackage extension type occurs once and is among the capabilities of its leaf.',
  },

  // Proposals
  addSignatureKeyUnique: {
    number: 101,
    section: '12.2',
    text: 'The signature key of an added leaf is unique among proposals and members.',
  },
  addInitKeyUnique: { number: 102, section: '12.2', text: 'init_key of an Add is unique among proposals.' },
  addEncryptionKeyUnique: {
    number: 103,
    section: '12.2',
    text: 'The encryption key of an added leaf is unique among proposals and members.',
  },
  addCapabilities: { number: 106, section: '12.1.1', text: 'An added leaf has the capabilities the group requires.' },
  removeUnique: { number: 107, section: '12.2', text: 'At most one Update or Remove applies to a leaf.' },
  removeMember: { number: 108, section: '12.1.3', text: 'A Remove names a non-blank leaf.' },
  updateCapabilities: {
    number: 109,
    section: '12.1.2',
    text: 'An updated leaf has the capabilities the group requires.',
  },
  updateEncryptionKeyUnique: {
    number: 110,
    section: '12.1.2',
    text: 'The encryption key of an updated leaf is unique among proposals and members.',
  },
  updateByCommitter: { number: 111, section: '12.2', text: 'A commit covers no Update of its own sender.' },
  updateSender: { number: 112, section: '12.1.2', text: 'The sender of an Update is a member.' },
  updateSignatureKeyUnique: {
    number: 12121,
    section: '7.3',
    text: 'The signature key of an updated leaf is unique among members.',
  },
  pskNonce: { number: 401, section: '12.1.4', text: 'psk_nonce has KDF.Nh bytes.' },
  pskType: {
    number: 402,
    section: '12.1.4',
    text: 'A proposed PSK is external, or resumption with usage application.',
  },
  pskUnique: { number: 403, section: '12.2', text: 'No two PreSharedKey proposals name the same PreSharedKeyID.' },
  pskAvailable: { number: 12141, section: '8.4', text: 'Every pre-shared key named is known.' },
  externalInit: { number: 12161, section: '8.3', text: 'kem_output of an ExternalInit is well-formed.' },
  externalProposalType: {
    number: 12181,
    section: '12.1.8',
    text: 'An external sender proposes Add, Remove, PreSharedKey, ReInit or GroupContextExtensions only; a new member its own Add.',
  },
  reInitVersion: { number: 12151, section: '12.1.5', text: 'ReInit does not lower the protocol version.' },
  reInitAlone: { number: 12201, section: '12.2', text: 'ReInit stands alone in a commit.' },
  externalInitMember: { number: 12202, section: '12.2', text: 'ExternalInit occurs in external commits only.' },
  extensionsOnce: { number: 208, section: '12.2', text: 'At most one GroupContextExtensions proposal.' },
  extensionsSupported: {
    number: 209,
    section: '12.1.7',
    text: 'Every member supports every GroupContext extension and required capability.',
  },
  extensionsUnique: { number: 12171, section: '13.4', text: 'No extension type occurs twice in one list.' },
  extensionsValid: {
    number: 12172,
    section: '13.4',
    text: 'Known extensions are well-formed and stand where they may.',
  },
  proposalSupported: { number: 113, section: '12.2', text: 'Every member supports the type of every proposal.' },
  proposalsLimit: { number: 12203, section: 'API', text: 'At most proposalsMax proposals wait for a commit.' },

  // Commits
  removeCommitter: { number: 200, section: '12.2', text: 'A commit does not remove its sender.' },
  pathRequired: {
    number: 201,
    section: '12.4',
    text: 'A commit has a path if it is empty or covers a Remove, Update, ExternalInit or GroupContextExtensions.',
  },
  pathLength: {
    number: 202,
    section: '7.6',
    text: 'A path has one node for each node of the filtered direct path, one ciphertext for each node of its resolution.',
  },
  pathDecrypts: { number: 203, section: '7.6', text: 'Path secrets decrypt.' },
  pathKeysMatch: {
    number: 204,
    section: '7.6',
    text: 'Public keys derived from path secrets equal those in the path.',
  },
  confirmationTag: { number: 205, section: '8.1', text: 'The confirmation_tag verifies.' },
  pathLeafKeyUnique: {
    number: 206,
    section: '12.4.2',
    text: 'Encryption and signature key of the path leaf are unique among members.',
  },
  pathKeysUnique: { number: 207, section: '12.4.2', text: 'No public key of a path occurs in the tree.' },
  pathParentHash: { number: 12401, section: '12.4.2', text: 'parent_hash of the path leaf is that of the new path.' },
  externalInitPresent: { number: 240, section: '12.2', text: 'An external commit covers an ExternalInit.' },
  externalInitOnce: { number: 241, section: '12.2', text: 'An external commit covers one ExternalInit only.' },
  externalProposals: {
    number: 242,
    section: '12.2',
    text: 'An external commit covers ExternalInit, at most one Remove, and PreSharedKey, nothing else.',
  },
  externalRemove: {
    number: 243,
    section: '12.2',
    text: 'An external commit removes the former self of the joiner only.',
  },
  externalByValue: { number: 244, section: '12.4.3.2', text: 'An external commit covers nothing by reference.' },
  externalPath: { number: 245, section: '12.4.3.2', text: 'An external commit has a path.' },
  externalSignature: {
    number: 246,
    section: '12.4.3.2',
    text: 'The signature of an external commit verifies by the key of its path leaf.',
  },
  proposalKnown: {
    number: 12402,
    section: '12.4',
    text: 'Every proposal a commit refers to has been received in this epoch, and is referred to once.',
  },
  commitPolicy: { number: 12403, section: 'API', text: 'The application accepts the commit (validateCommit).' },

  // Trees
  treeTrailingBlank: { number: 300, section: '12.4.3.3', text: 'A ratchet_tree does not end in a blank node.' },
  treeSize: { number: 12446, section: 'API', text: 'A tree has at most 65,536 leaves.' },
  treeNodeType: { number: 12441, section: '12.4.3.3', text: 'Leaves stand at even, parents at odd positions.' },
  treeHash: { number: 12442, section: '12.4.3.1', text: 'The tree hash is the one in the GroupContext.' },
  treeParentHash: { number: 12443, section: '7.9.2', text: 'Every non-blank parent node is parent-hash valid.' },
  treeUnmergedLeaves: {
    number: 12444,
    section: '12.4.3.1',
    text: 'Unmerged leaves are ascending, non-blank descendants and in every non-blank node between.',
  },
  treeKeysUnique: {
    number: 12445,
    section: '12.4.3.1',
    text: 'No encryption key occurs twice in the tree, no signature key twice among leaves.',
  },

  // Welcomes
  welcomeKeyPackage: { number: 12431, section: '12.4.3.1', text: 'The Welcome has an entry for the KeyPackage.' },
  welcomeSuite: {
    number: 12432,
    section: '12.4.3.1',
    text: 'Welcome, GroupInfo and KeyPackage have one cipher suite and version.',
  },
  welcomeSecrets: { number: 12433, section: '12.4.3.1', text: 'The group secrets decrypt.' },
  welcomeGroupInfo: { number: 12434, section: '12.4.3.1', text: 'The GroupInfo decrypts.' },
  welcomePsks: {
    number: 12435,
    section: '12.4.3.1',
    text: 'A resumption PSK with usage reinit or branch is the only one, and of the group continued; without it none is.',
  },
  groupInfoSignature: {
    number: 12436,
    section: '12.4.3.1',
    text: 'The signature of the GroupInfo verifies, by a member.',
  },
  reInitContinues: {
    number: 12447,
    section: '12.4.3.1',
    text: 'The group that continues a reinitialized one is in epoch 1, as its ReInit says, and has all its members.',
  },
  branchContinues: {
    number: 12448,
    section: '12.4.3.1',
    text: 'A branch is in epoch 1, has the version and cipher suite of the group branched from, and members of it only.',
  },
  externalPub: {
    number: 12449,
    section: '12.4.3.2',
    text: 'A GroupInfo to join by has a well-formed external_pub.',
  },
  welcomeGroupUnique: { number: 12437, section: '12.4.3.1', text: 'The group is the expected one and not known yet.' },
  welcomeTree: { number: 12438, section: '12.4.3.1', text: 'The ratchet tree is given.' },
  welcomeLeaf: { number: 12439, section: '12.4.3.1', text: 'The tree has the leaf of the KeyPackage.' },
  welcomePathSecret: {
    number: 12440,
    section: '12.4.3.1',
    text: 'The path secret belongs to the public keys of the tree.',
  },
} as const satisfies Readonly<Record<string, ValidationRule>>;

export type RuleName = keyof typeof validationRules;
